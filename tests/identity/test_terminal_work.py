"""``anju terminal run``, ``submit`` and ``queue`` as people use them, against the whole service."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from devices.terminal import Outbox
from devices.terminal.queue import EntryState
from identity import cli
from identity.app import open_installation
from identity.server_process import loopback_toml, serving
from identity.setup import create_installation
from identity.types import ApplicationState
from issuance import photo
from tests.devices.test_extract import ridges
from tests.identity.kit import person, records
from tests.identity.service_kit import admit_terminal

ROOT = Path(__file__).resolve().parents[2]
PEOPLE = 6


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("terminal-work") / "anju"
    create_installation(made, loopback_toml()[0])
    with open_installation(made) as opened:
        for name in ("hall-1", "hall-2"):
            admit_terminal(opened, "east-gate", name)
    return made


def stated(number: int) -> dict[str, str]:
    fields = asdict(person(number, datetime.now(UTC)))
    fields["gender"] = fields["gender"].name.lower()
    return {
        name: value if isinstance(value, str) else value.isoformat()
        for name, value in fields.items()
    }


def face(number: int) -> bytes:
    """Some 200 kB: several chunks."""
    pixels = np.random.default_rng(number).integers(0, 256, (500, 400), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def drop(spool: Path, number: int) -> None:
    spool.mkdir(exist_ok=True)
    files = []
    for finger, record in enumerate(records(number)):
        files.append({"file": f"visit-{number}-{finger}.iso"})
        (spool / files[-1]["file"]).write_bytes(record)
    (spool / f"visit-{number}.png").write_bytes(face(number))
    told = {"person": stated(number), "samples": files, "portrait": f"visit-{number}.png"}
    (spool / f"visit-{number}.tmp").write_text(json.dumps(told), encoding="utf-8")
    (spool / f"visit-{number}.tmp").rename(spool / f"visit-{number}.json")


def states(spool: Path) -> list[str]:
    return [json.loads(one.read_text())["state"] for one in sorted(spool.glob("*.state"))]


def until(holds: Callable[[], bool], limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def start(home: Path, spool: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "identity", "terminal", "run", str(home), "--spool", str(spool)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_terminal_and_register_killed_at_work_enrol_everybody_once(
    installation: Path, tmp_path: Path
) -> None:
    """kill -9 for both, on real disks and a real register."""
    home, spool = installation / "terminals" / "hall-1", tmp_path / "spool"
    for number in range(PEOPLE // 2):
        drop(spool, number)
    terminal = start(home, spool)  # nobody answers yet: it keeps what it takes
    until(lambda: len(states(spool)) > 0)
    terminal.kill()
    terminal.communicate()
    with serving(installation) as server:
        terminal = start(home, spool)
        for number in range(PEOPLE // 2, PEOPLE):
            drop(spool, number)
        until(lambda: "sent" in states(spool))
        server.process.kill()
        server.process.wait()
        terminal.kill()
        terminal.communicate()
    with serving(installation):
        terminal = start(home, spool)
        until(lambda: states(spool) == ["sent"] * PEOPLE)
        terminal.send_signal(signal.SIGTERM)
        out, _ = terminal.communicate(timeout=30)
    assert terminal.returncode == 0
    assert out.rstrip().endswith("stopped; what is queued stays")
    assert person(0, datetime.now(UTC)).full_name not in out
    assert {one.suffix for one in spool.iterdir()} == {".state"}
    with Outbox(home) as outbox, open_installation(installation) as opened:
        receipts = [one.application for one in outbox.queue.entries(EntryState.SENT)]
        assert len(receipts) == PEOPLE
        found = [opened.enrolment.application(one.application_id) for one in receipts if one]
        assert {one.state for one in found} == {ApplicationState.ENROLLED}
        assert len({one.registrant_id for one in found}) == PEOPLE
        assert len(opened.matcher) == 2 * PEOPLE
        for number in range(PEOPLE):
            document = person(number, datetime.now(UTC)).document_number
            with opened.database.read() as tx:
                [registrant_id] = tx.people.registrants_with_document(document)
                kept = tx.people.registrant(registrant_id).particulars
                assert tx.uploads.claimed_bytes() == 0
            assert kept is not None
            assert kept.photo == photo.make(face(number)).data


def anju(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str | Path
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["anju", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_an_application_is_kept_offline_listed_and_settled(
    installation: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = installation / "terminals" / "hall-2"
    who, finger, empty = (tmp_path / name for name in ("who.json", "finger.iso", "empty.iso"))
    nobody = tmp_path / "nobody.json"
    nobody.write_text(json.dumps({**stated(51), "document_number": "12"}), encoding="utf-8")
    who.write_text(json.dumps(stated(50)), encoding="utf-8")
    finger.write_bytes(records(50)[0])
    empty.write_bytes(b"FMR")

    submit = ("terminal", "submit", home, who, finger, "--label", "ticket 50", "--wait", "0")
    for _ in range(2):  # twice is once
        code, out, err = anju(capsys, monkeypatch, *submit)
        assert code == 0
        assert "ticket 50: queued" in out
        assert "no answer from the register" in err
    code, _, err = anju(capsys, monkeypatch, "terminal", "submit", home, who, empty)
    assert code == 1  # at once, and nothing of it is kept
    assert "a record cannot be read" in err
    bad = ("terminal", "submit", home, nobody, finger, "--label", "ticket 51", "--wait", "0")
    anju(capsys, monkeypatch, *bad)
    code, out, _ = anju(capsys, monkeypatch, "terminal", "queue", home)
    assert (out.count("ticket 50"), out.count("ticket 51")) == (1, 1)

    with serving(installation):
        code, out, _ = anju(capsys, monkeypatch, *submit[:-1], "20")
        assert code == 0
        assert "ticket 50: sent, ENROLLED A" in out
        code, out, err = anju(capsys, monkeypatch, *bad[:-1], "20")
        assert "ticket 51: needs attention, INVALID_ARGUMENT/DETAILS_INVALID" in out
        assert "1 submissions need attention" in err
        # An image does as well as a record, and is the same finger as the record made of it.
        picture = tmp_path / "finger.png"
        Image.fromarray(ridges()[0]).save(picture, dpi=(500, 500))
        who.write_text(json.dumps(stated(52)), encoding="utf-8")
        code, out, _ = anju(
            capsys, monkeypatch, "terminal", "submit", home, who, picture, "--label", "ticket 52"
        )
        assert "ticket 52: sent, ENROLLED A" in out
        code, out, _ = anju(capsys, monkeypatch, "terminal", "extract", picture, "--out", tmp_path)
        assert code == 0
        assert "finger.iso" in out
        code, out, _ = anju(
            capsys, monkeypatch, "terminal", "enrol", home, who, tmp_path / "finger.iso"
        )
        assert json.loads(out)["state"] == "RECOGNISED"
    with Outbox(home) as outbox:
        [refused] = outbox.queue.entries(EntryState.ATTENTION)
    code, out, _ = anju(capsys, monkeypatch, "terminal", "queue", home, "--retry", refused.key)
    assert code == 0
    code, _, err = anju(capsys, monkeypatch, "terminal", "queue", home, "--discard", refused.key)
    assert code == 1
    assert err == f"anju: submission {refused.key} is queued: it stays\n"
    with Outbox(home) as outbox:
        outbox.queue.mark_attention(refused.key, "INVALID_ARGUMENT", "DECODE_FAILED", "no record")
    code, out, _ = anju(capsys, monkeypatch, "terminal", "queue", home, "--discard", refused.key)
    assert code == 0
    assert "ticket 51" not in out
    assert "ticket 50" in out


def test_an_image_of_unknown_resolution_fails_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = tmp_path / "finger.png"
    Image.new("L", (300, 300), "white").save(picture)
    code, _, err = anju(capsys, monkeypatch, "terminal", "extract", picture)
    assert code == 1
    assert err == (
        f"anju: {picture}: the file does not say its resolution: state 500 or 1000 ppi\n"
    )
    code, _, err = anju(capsys, monkeypatch, "terminal", "extract", picture, "--ppi", "500")
    assert code == 0
    assert "hardly a finger" in err


def test_submitting_a_person_without_a_name_fails_in_one_line(
    installation: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    who, finger = tmp_path / "who.json", tmp_path / "finger.iso"
    who.write_text(json.dumps({"gender": "male"}), encoding="utf-8")
    finger.write_bytes(b"FMR")
    home = installation / "terminals" / "hall-2"
    code, _, err = anju(capsys, monkeypatch, "terminal", "submit", home, who, finger)
    assert code == 1
    assert "full_name" in err
    assert err.count("\n") == 1
