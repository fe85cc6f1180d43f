from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from issuance import memory, qr
from issuance.authority import NewAuthority
from issuance.card import draw_card
from issuance.cli import app
from issuance.issuer import Issuer
from issuance.types import IssuedPermit
from tests.issuance.kit import HOLDER, RULES, START, Clock, holder

NOW = ["--now", (START + timedelta(hours=1)).isoformat()]


class Counter:
    """A department's counter: files on disk and the command."""

    def __init__(self, issuer: Issuer, authority: NewAuthority, directory: Path) -> None:
        self.issuer, self.authority, self.directory = issuer, authority, directory
        self.state = directory / "state.json"

    def file(self, name: str, data: bytes) -> str:
        path = self.directory / name
        path.write_bytes(data)
        return str(path)

    def run(self, *args: str, stdin: bytes | None = None) -> tuple[int, str, str]:
        command = [
            "verify",
            *args,
            "--trust",
            str(self.authority.bundle),
            "--state",
            str(self.state),
        ]
        if "--now" not in args:
            command += NOW
        result = CliRunner().invoke(app, command, input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def counter(issuer: Issuer, authority: NewAuthority, tmp_path: Path) -> Counter:
    return Counter(issuer, authority, tmp_path)


@pytest.fixture
def issued(issuer: Issuer) -> IssuedPermit:
    permit = issuer.issue(HOLDER)
    issuer.publish_trust()
    return permit


def test_card_picture_is_valid(counter: Counter, issued: IssuedPermit) -> None:
    picture = counter.file("card.png", draw_card(issued.qr_text, RULES, dpi=300))
    code, out, _ = counter.run(picture)
    assert code == 0
    assert "VALID 有效" in out
    assert "张示例" in out
    assert "和平路" not in out


def test_terminal_without_chinese_still_gets_the_verdict(
    counter: Counter, issued: IssuedPermit
) -> None:
    path = counter.file("permit.txt", issued.qr_text.encode())
    command = [sys.executable, "-m", "issuance", "verify", path, *NOW]
    files = ["--trust", str(counter.authority.bundle), "--state", str(counter.state)]
    for extra in ([], ["--json"]):
        done = subprocess.run(
            [*command, *files, *extra],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        text = done.stdout.decode("ascii")
        assert "VALID" in text
    assert json.loads(text)["shown"]["full_name"] == "张示例"


def test_long_address_is_shown_whole_in_a_narrow_window(
    counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    address = "示例市虚构区样例街道办事处和谐社区居民委员会幸福路" * 4
    permit = counter.issuer.issue(holder(residence_address=address))
    counter.issuer.publish_trust()
    path = counter.file("permit.txt", permit.qr_text.encode())
    _, out, _ = counter.run(path, "--purpose", "housing")
    assert address in out.replace("\n", "")


def test_jpeg_and_text_and_stdin_are_read_too(counter: Counter, issued: IssuedPermit) -> None:
    image = qr.picture(qr.symbol(issued.qr_text), 4).convert("RGB")
    image.save(counter.directory / "permit.jpg", quality=60)
    assert counter.run(str(counter.directory / "permit.jpg"))[0] == 0
    text = issued.qr_text.encode() + b"\r\n"
    assert counter.run(counter.file("permit.txt", text))[0] == 0
    assert counter.run("-", stdin=text)[0] == 0


def test_json_has_stable_tokens_and_only_the_purpose_fields(
    counter: Counter, issued: IssuedPermit
) -> None:
    path = counter.file("permit.txt", issued.qr_text.encode())
    code, out, _ = counter.run(path, "--json", "--purpose", "housing")
    document = json.loads(out)
    assert code == 0
    assert (document["valid"], document["reason"], document["stage"]) == (True, "VALID", None)
    assert "residence_address" in document["shown"]
    assert "birth_date" not in document["shown"]
    assert document["trust"]["freshness"] == "fresh"


def test_refusal_exits_1_and_says_why(counter: Counter, issued: IssuedPermit) -> None:
    counter.issuer.revoke(issued.status)
    counter.issuer.publish_trust()
    path = counter.file("permit.txt", issued.qr_text.encode())
    code, out, _ = counter.run(path)
    assert code == 1
    assert "REFUSED" in out
    assert "REVOKED" in out
    assert json.loads(counter.run(path, "--json")[1])["stage"] == "status"


def test_permit_is_found_beside_another_symbol(counter: Counter, issued: IssuedPermit) -> None:
    other = qr.picture(qr.symbol("HTTPS://EXAMPLE.ORG/WIFI"), 6)
    permit = qr.picture(qr.symbol(issued.qr_text), 4)
    sheet = Image.new("L", (other.width + permit.width + 40, permit.height + 40), 255)
    sheet.paste(other, (20, 20))
    sheet.paste(permit, (other.width + 30, 20))
    sheet.save(counter.directory / "both.png")
    assert counter.run(str(counter.directory / "both.png"))[0] == 0


def test_device_remembers_the_newest_time_it_saw(
    counter: Counter, issued: IssuedPermit, clock: Clock
) -> None:
    path = counter.file("permit.txt", issued.qr_text.encode())
    _, _, err = counter.run(path)
    assert counter.authority.root_fingerprint in err
    clock.advance(days=1)
    counter.issuer.publish_trust()
    later = ["--now", (START + timedelta(days=1, hours=1)).isoformat()]
    code, _, err = counter.run(path, *later)
    assert (code, err) == (0, "")
    seen = memory.load(counter.state)
    assert seen is not None
    assert seen.floor == START + timedelta(days=1)
    code, out, _ = counter.run(path)
    assert code == 1
    assert "CLOCK_BEFORE_TRUST" in out


def test_older_bundle_than_before_is_an_error(counter: Counter, issued: IssuedPermit) -> None:
    path = counter.file("permit.txt", issued.qr_text.encode())
    old = counter.authority.bundle.read_bytes()
    counter.issuer.publish_trust()
    counter.run(path)
    counter.authority.bundle.write_bytes(old)
    code, out, err = counter.run(path)
    assert (code, out) == (2, "")
    assert "older than one used here before" in err


def test_whatever_cannot_be_judged_is_one_line_and_exit_2(
    counter: Counter, issued: IssuedPermit
) -> None:
    good = counter.file("permit.txt", issued.qr_text.encode())
    bomb = counter.directory / "bomb.png"
    Image.new("1", (12_000, 12_000)).save(bomb)
    blank = counter.directory / "blank.png"
    Image.new("L", (50, 50), 255).save(blank)
    empty = counter.directory / "empty"
    empty.mkdir()
    cases = [
        (str(counter.directory / "missing.png"),),
        (str(empty),),
        (counter.file("long.txt", b"A" * 50_000),),
        (counter.file("cut.png", blank.read_bytes()[:40]),),
        (str(bomb),),
        (str(blank),),
        (good, "--purpose", "police"),
        (good, "--now", "yesterday"),
        (good, "--now", "2026-11-25T08:00:00"),
        (good, "--root", good),
        (good, "--root", str(counter.directory / "missing.json")),
    ]
    for args in cases:
        code, out, err = counter.run(*args)
        assert (code, out) == (2, ""), args
        assert len(err.strip().splitlines()) == 1, err
        assert err.startswith("anju: ")
        assert HOLDER.full_name not in err
    counter.state.write_text("junk")
    assert counter.run(good)[0] == 2


def test_state_that_cannot_be_written_warns_and_still_verifies(
    counter: Counter, issued: IssuedPermit
) -> None:
    counter.state = counter.directory / "permit.txt" / "state.json"
    path = counter.file("permit.txt", issued.qr_text.encode())
    code, out, err = counter.run(path)
    if code == 2:  # the memory's place is a file: reading it already fails
        assert "unreadable" in err
    else:
        assert "cannot remember" in err
        assert "VALID" in out


def test_trust_info_tells_who_and_how_old(counter: Counter, issued: IssuedPermit) -> None:
    result = CliRunner().invoke(app, ["trust-info", str(counter.authority.bundle), *NOW])
    assert result.exit_code == 0
    assert counter.authority.root_fingerprint in result.stdout
    assert "fresh" in result.stdout
    assert CliRunner().invoke(app, ["trust-info", str(counter.state)]).exit_code == 2
