"""The ``anju`` command: every failure is one line on stderr, and the exit says so."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from structlog.testing import capture_logs
from typer.testing import CliRunner

from anju.v1 import terminals_pb2
from devices.terminal import Connection
from identity import cli
from identity.commands.inventory import warnings
from tests.identity.service_kit import Service, running

ROOT = Path(__file__).resolve().parents[2]
SERVICE_ONLY = ("faiss", "sqlalchemy", "alembic", "numba", "structlog", "prometheus_client")
NOON = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


EVERY_COMMAND = list(commands(typer.main.get_command(cli.app)))


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def anju(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run_python("-m", "identity", *map(str, arguments))


def in_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str | Path
) -> tuple[int, str, str]:
    """The same entry point without a process of its own."""
    monkeypatch.setattr(sys, "argv", ["anju", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    # The server runs in this process: what it logs is not what the command says.
    with capture_logs(), running(tmp_path_factory.mktemp("commands") / "anju") as started:
        yield started


def one_line(err: str) -> str:
    assert err.startswith("anju: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


def test_the_list_of_commands_is_the_whole_tree() -> None:
    names = {" ".join(path) for path in EVERY_COMMAND}
    assert {"init", "serve", "demo", "verify", "case decide", "permit show"} <= names


@pytest.mark.parametrize("path", EVERY_COMMAND, ids=" ".join)
def test_every_command_explains_itself(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli.app, [*path, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_help_works_from_a_shell() -> None:
    done = anju("--help")
    assert done.returncode == 0
    assert "serve" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("operator", "list"),
        ("operator", "revoke", "anna", "--reason", "left"),
        ("operator", "enrol", "anna", "--role", "station"),
        ("terminal", "list"),
        ("terminal", "revoke", "hall-1", "gone"),
        ("case", "list"),
        ("register", "disclosures", "R1"),
        ("audit", "verify"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_what_is_asked_over_the_network_needs_nothing_of_the_service(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    script = (
        f"import sys\nfor name in {SERVICE_ONLY}: sys.modules[name] = None\n"
        f"sys.argv = {['anju', *arguments, '--as', str(tmp_path / 'none')]}\n"
        "from identity.cli import main\nmain()"
    )
    done = run_python("-c", script)
    assert "holds no usable credentials" in one_line(done.stderr)


def test_serving_what_is_no_working_directory_fails_in_one_line(tmp_path: Path) -> None:
    done = anju("serve", tmp_path)
    assert done.returncode == 1
    assert "run `anju init` first" in one_line(done.stderr)


def test_an_unknown_permit_fails_in_one_line(service: Service) -> None:
    credentials = service.directory / "operators" / "operator-1"
    done = anju("permit", "show", "T-0", "--as", credentials)
    assert done.returncode == 1
    assert "PERMIT_UNKNOWN" in one_line(done.stderr)


def test_init_makes_a_directory_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "anju"
    code, out, _ = in_process(capsys, monkeypatch, "init", target)
    assert code == 0
    assert "root of trust" in out
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    code, _, err = in_process(capsys, monkeypatch, "init", target)
    assert code == 1
    assert "never overwrites one" in one_line(err)
    assert before == {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}


def test_wrong_usage_exits_with_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments in (("no-such-command",), ("permit", "show"), ("init",)):
        code, _, err = in_process(capsys, monkeypatch, *arguments)
        assert code == 2
        assert "Traceback" not in err


def test_what_cannot_work_says_why_in_one_line(
    service: Service,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    operator = service.directory / "operators" / "operator-1"
    empty = tmp_path / "empty"
    empty.mkdir()
    person = tmp_path / "person.json"
    person.write_text("{not json", encoding="utf-8")
    sample = tmp_path / "finger.iso"
    sample.write_bytes(b"FMR")
    cases: list[tuple[tuple[str | Path, ...], str]] = [
        (("permit", "show", "T-0", "--as", empty), "no usable credentials"),
        (("permit", "show", "T-0", "--as", tmp_path / "nowhere"), "no usable credentials"),
        (("permit", "card", "T-0", tmp_path / "card.gif", "--as", operator), ".png or .pdf"),
        (("permit", "card", "T-0", tmp_path / "card.png", "--as", operator), "PERMIT_UNKNOWN"),
        (("permit", "issue", "R-0", "--as", operator), "REGISTRANT_UNKNOWN"),
        (("permit", "revoke", "T-0", "--reason", "x", "--as", operator), "PERMIT_UNKNOWN"),
        (("case", "show", "C-0", "--as", operator), "CASE_UNKNOWN"),
        (
            ("case", "decide", "C-0", "reject", "--reason", "x", "--as", operator),
            "CASE_UNKNOWN",
        ),
        (("case", "appeal", "C-0", "--statement", "x", "--as", operator), "CASE_UNKNOWN"),
        (
            ("register", "show", "R-0", "--purpose", "nosy", "--reference", "1", "--as", operator),
            "PURPOSE_UNKNOWN",
        ),
        (("register", "disclosures", "R-0", "--as", operator), "REGISTRANT_UNKNOWN"),
        (("terminal", "revoke", "nobody", "lost", "--as", operator), "TERMINAL_UNKNOWN"),
        (("terminal", "reprovision", "nobody", "lost", "--as", operator), "TERMINAL_UNKNOWN"),
        (("terminal", "login", empty, "anna", "--key", operator), "no usable credentials"),
        (("terminal", "login", operator, "anna", "--key", sample), "can be read by others"),
        (("terminal", "logout", operator), "nobody is logged in"),
        (("operator", "revoke", "nobody", "--reason", "x", "--as", operator), "OPERATOR_UNKNOWN"),
        (("operator", "enrol", "B!", "--role", "station", "--as", operator), "STATION_INVALID"),
        (
            ("operator", "enrol", "bo", "--role", "station", "--key", sample, "--as", operator),
            "no public key",
        ),
        (("terminal", "token", "East Gate", "hall-1", "--as", operator), "STATION_INVALID"),
        (("terminal", "enrol", operator, person, sample), "no JSON file"),
        (("terminal", "enrol", operator, tmp_path / "none.json", sample), "No such file"),
        (("operator", "add", empty, "anna", "--role", "station"), "run `anju init` first"),
        (("init", tmp_path / "new", "--config", tmp_path / "none.toml"), "No such file"),
    ]
    for arguments, said in cases:
        code, _, err = in_process(capsys, monkeypatch, *arguments)
        assert code == 1, arguments
        assert said in one_line(err), arguments
    assert not (tmp_path / "card.png").exists()


def test_the_lists_of_an_empty_register_say_so(
    service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = service.directory / "operators" / "operator-1"
    for arguments in (("terminal", "list"), ("case", "list")):
        code, out, _ = in_process(capsys, monkeypatch, *arguments, "--as", operator)
        assert (code, out) == (0, "none\n")
    code, out, _ = in_process(capsys, monkeypatch, "audit", "verify", "--as", operator)
    assert code == 0
    assert "chain intact" in out


def test_operators_are_enrolled_listed_and_revoked(
    service: Service,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANJU_CREDENTIALS", str(service.directory / "operators" / "operator-1"))

    def run(*arguments: str | Path) -> str:
        code, out, err = in_process(capsys, monkeypatch, *arguments)
        assert code == 0, err
        return out

    key = ec.generate_private_key(ec.SECP256R1())
    public, private = tmp_path / "anna.pub", tmp_path / "anna.pem"
    public.write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    private.chmod(0o600)
    enrolled = ("operator", "enrol", "anna", "--role", "station", "--role", "adjudicator")
    assert "anna is registered" in run(*enrolled, "--key", public)
    first = run("operator", "enrol", "bo", "--role", "station", "--password").splitlines()[-1]
    assert re.fullmatch(r"(?:[0-9A-Z]{4}-){3}[0-9A-Z]{4}", first)
    listed = run("operator", "list")
    assert re.search(r"anna +station adjudicator +key +-", listed)
    assert re.search(r"bo +station +first password, until ", listed)

    service.terminal("east-gate", "hall-1").close()
    home = service.directory / "terminals" / "hall-1"
    assert "anna is logged in until" in run("terminal", "login", home, "anna", "--key", private)
    typed = iter([first, "my own phrase"])
    monkeypatch.setattr(typer, "prompt", lambda *_args, **_options: next(typed))
    assert "bo is logged in until" in run("terminal", "login", home, "bo")
    assert "logged out" in run("terminal", "logout", home)

    assert "anna is revoked" in run("operator", "revoke", "anna", "--reason", "left")
    assert re.search(r"anna .*: left", run("operator", "list"))
    assert "bo is revoked" in run(
        "operator", "revoke", "bo", "--reason", "left", "--directory", service.directory
    )
    token = run("terminal", "reprovision", "hall-1", "stolen").splitlines()[-1]
    address = service.server.provisioning_address
    main = ("--main-address", service.server.address)
    assert "hall-1" in run("terminal", "provision", address, home, "--token", token, *main)
    assert "ACTIVE" in run("terminal", "list")
    run("terminal", "revoke", "hall-1", "gone")


def terminal_message(name: str, **changes: Any) -> terminals_pb2.Terminal:
    made = terminals_pb2.Terminal(
        terminal_id=name, station_id="hall", state=terminals_pb2.TERMINAL_STATE_ACTIVE
    )
    made.certificate_not_after.FromDatetime(changes.pop("until", NOON + timedelta(days=60)))
    contact = changes.pop("contact", NOON - timedelta(hours=1))
    if contact is not None:
        made.last_contact.FromDatetime(contact)
    made.MergeFrom(terminals_pb2.Terminal(**changes))
    return made


def test_the_inventory_warns_of_what_somebody_should_look_after() -> None:
    found = [
        terminal_message("well"),
        terminal_message("soon", until=NOON + timedelta(days=13, hours=5)),
        terminal_message("late", until=NOON),
        terminal_message("never", contact=None),
        terminal_message("silent", contact=NOON - timedelta(days=3)),
        terminal_message(
            "gone", until=NOON, contact=None, state=terminals_pb2.TERMINAL_STATE_REVOKED
        ),
    ]
    told = list(warnings(found, NOON, timedelta(days=14), timedelta(days=3)))
    assert told == [
        "soon: its certificate expires in 13 days, not renewed yet",
        "late: its certificate has expired; provision it again",
        "never: it has a certificate and has never called",
        "silent: no contact for 3 days",
    ]


def test_trust_material_is_exported_whole(
    service: Service,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    operator = service.directory / "operators" / "operator-1"
    target = tmp_path / "trust.anju"
    code, out, _ = in_process(capsys, monkeypatch, "trust", "export", target, "--as", operator)
    assert code == 0
    assert str(target) in out
    assert target.read_bytes() == service.installation.issuer.trust().bundle
    assert list(tmp_path.iterdir()) == [target]


def test_a_server_that_does_not_answer_fails_in_one_line(
    service: Service,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = tmp_path / "operator"
    shutil.copytree(service.directory / "operators" / "operator-1", home)
    (home / "server").write_text("127.0.0.1:1\n", encoding="utf-8")
    call = Connection.call
    monkeypatch.setattr(
        Connection,
        "call",
        lambda self, method, request, deadline_s=0: call(self, method, request, 0.5),
    )
    code, _, err = in_process(capsys, monkeypatch, "permit", "show", "T-0", "--as", home)
    assert code == 1
    assert "127.0.0.1:1" in one_line(err)


def test_a_failure_nobody_foresaw_is_one_line_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_directory: Path) -> None:
        raise RuntimeError("张示例")

    monkeypatch.setattr("identity.serving.run", fail)
    code, _, err = in_process(capsys, monkeypatch, "serve", tmp_path)
    assert code == 1
    assert "internal error (RuntimeError)" in one_line(err)
    assert "张示例" not in err
