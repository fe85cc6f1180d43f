"""``anju terminal check`` against the real server, and against what vendors' networks have."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import Int64Value

from anju.v1 import enrolment_pb2, terminals_pb2
from devices import credentials
from devices.authority import SERVER_NAME, init_authority, open_authority
from devices.terminal.conformance import Outcome, Target, check, checks
from devices.types import Role
from identity import cli
from identity.ports import SystemClock
from identity.record_check import examine
from matcher.formats import RecordFormat
from tests.devices.fakes import FakeClock
from tests.devices.loopback import Proxy
from tests.devices.served import Served
from tests.identity.kit import records

VECTORS = Path(__file__).parents[1] / "vectors" / "minutiae_formats"
IDLE_S = 0.2
EVERY_CHECK = {
    "tls-1.3",
    "http2",
    "tls-1.2",
    "server-certificate",
    "fingerprint",
    "provisioning",
    "credentials",
    "authority",
    "call",
    *checks.CALLS,
}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "HELD_S", 0.3)


def outcomes(target: Target, now: Callable[[], datetime] | None = None) -> dict[str, Outcome]:
    extra: dict[str, Any] = {} if now is None else {"now": now}
    found = list(check(target, idle_s=IDLE_S, deadline_s=5.0, **extra))
    assert len({one.check for one in found}) == len(found)
    assert {one.check for one in found} == EVERY_CHECK or found[0].outcome is Outcome.FAILED
    for one in found:
        assert one.advice or one.outcome is not Outcome.FAILED
    return {one.check: one.outcome for one in found}


def failures(target: Target, now: Callable[[], datetime] | None = None) -> set[str]:
    found = outcomes(target, now)
    return {name for name, outcome in found.items() if outcome is Outcome.FAILED}


def target(city: Served, address: str | None = None) -> Target:
    return Target(address or city.main, directory=city.home)


def rows(city: Served) -> dict[str, list[Any]]:
    """All that the register knows, but for the terminals' last contact."""
    with closing(sqlite3.connect(city.directory / "register.sqlite3")) as database:
        tables = [
            name
            for (name,) in database.execute("select name from sqlite_master where type = 'table'")
        ]
        found = {}
        for table in tables:
            columns = [
                column[1]
                for column in database.execute(f"pragma table_info({table})")
                if column[1] != "last_contact"
            ]
            found[table] = database.execute(f"select {', '.join(columns)} from {table}").fetchall()
        return found


def anju(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str | Path
) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["anju", "terminal", "check", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


# -- A good server ---------------------------------------------------------------------------------


def test_a_good_server_passes_every_check_and_keeps_nothing(
    city: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = rows(city)
    record = city.directory / "right-index.iso"
    record.write_bytes(records(1)[0])
    everything = (city.main, "--provisioning", city.provisioning, "--as", city.home)
    code, out, _ = anju(
        monkeypatch, capsys, *everything, "--idle", "0.2", "--json", "--template", record
    )
    found = [json.loads(line) for line in out.splitlines()]
    assert [one for one in found if one["outcome"] == "failed"] == []
    assert {one["check"] for one in found} == {*EVERY_CHECK, "template"}
    assert [one["check"] for one in found if one["outcome"] == "skipped"] == ["fingerprint"]
    assert code == 0
    after = rows(city)
    assert len(before["audit_entries"]) > 0  # the right file is looked at
    assert {name for name in before if after[name] != before[name]} <= {"audit_entries"}
    entries = after["audit_entries"][len(before["audit_entries"]) :]
    assert all("DIGEST_MISMATCH" in entry for entry in entries)  # of several in a minute, one


def test_the_fingerprint_seen_elsewhere_is_compared(
    city: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = open_authority(city.directory / "devices", SystemClock(), ["localhost"])
    own = authority.server_fingerprint
    grouped = f"{own[:5].lower()}-{own[5:]}"
    code, out, err = anju(monkeypatch, capsys, city.main, "--fingerprint", grouped)
    assert code == 0
    assert "passed   fingerprint" in out
    assert "5 passed, 0 failed" in err  # without credentials TLS is all there is
    code, out, _ = anju(monkeypatch, capsys, city.main, "--fingerprint", "0" * 20)
    assert code == 1
    assert "failed   fingerprint" in out
    assert anju(monkeypatch, capsys, city.main, "--fingerprint", "abc")[0] == 2


def test_an_operators_credentials_are_enough_for_what_terminals_do_not_do(city: Served) -> None:
    home = city.directory / "operators" / "operator-1"
    found = outcomes(Target(city.main, directory=home))
    assert found["call"] is found["idle"] is Outcome.PASSED
    assert found["heartbeat"] is found["upload"] is Outcome.SKIPPED


# -- What is in between ----------------------------------------------------------------------------


class Forgetful(Proxy):
    """Gives up connections on which nothing came for a while, as firewalls do.

    Args:
        silent: passes nothing on from then, and tells nobody.
    """

    def __init__(self, target: str, patience_s: float, silent: bool) -> None:
        self._patience_s = patience_s
        self._silent = silent
        super().__init__(target)

    def _pass_on(self, source: socket.socket, sink: socket.socket, seen: bool) -> None:
        with suppress(OSError):
            while True:
                source.settimeout(self._patience_s)
                try:
                    chunk = source.recv(65_536)
                except TimeoutError:
                    if not self._silent:
                        self.cut()
                    return
                if not chunk:
                    break
                sink.sendall(chunk)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("silent", [False, True], ids=["reset", "silence"])
def test_a_proxy_that_forgets_idle_connections_is_found_out(
    city: Served, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    monkeypatch.setattr(checks, "HELD_S", 0.2)
    with Forgetful(city.main, patience_s=1.0, silent=silent) as proxy:
        found = list(check(target(city, proxy.address), idle_s=1.3, deadline_s=2.0))
    assert [one.check for one in found if one.outcome is Outcome.FAILED] == ["idle"]


def test_a_proxy_that_passes_tcp_on_does_no_harm(city: Served) -> None:
    with Proxy(city.main) as proxy:
        assert failures(target(city, proxy.address)) == set()


@contextmanager
def inspecting(directory: Path, names: list[str]) -> Iterator[str]:
    """Ends TLS with a certificate of its own for those names, as proxies that look inside do."""
    directory.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Corporate Inspection")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), False)
        .sign(key, hashes.SHA256())
    )
    (directory / "c.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (directory / "k.pem").write_bytes(credentials.key_to_pem(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "c.pem", directory / "k.pem")

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                with suppress(OSError), context.wrap_socket(client, server_side=True) as tls:
                    tls.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def test_a_proxy_that_inspects_tls_is_found_out(city: Served, tmp_path: Path) -> None:
    with inspecting(tmp_path / "plain", ["proxy.example"]) as address:
        blunt = failures(target(city, address))
    assert blunt == {"http2", "tls-1.2", "server-certificate", "authority"}
    with inspecting(tmp_path / "forged", [SERVER_NAME]) as address:
        clever = outcomes(Target(city.main, address, city.home))
        assert clever["provisioning"] is Outcome.FAILED  # another key there than on the main port
        assert failures(target(city, address)) == {"http2", "tls-1.2", "authority"}


def test_a_server_of_another_authority_is_not_ours(city: Served, tmp_path: Path) -> None:
    clock = FakeClock()
    stranger = init_authority(tmp_path / "authority", clock)
    home = tmp_path / "operator"
    stranger.write_client(home, Role.OPERATOR, "operator-9", city.main)
    found = outcomes(Target(city.main, directory=home))
    assert {name for name, one in found.items() if one is Outcome.FAILED} == {"authority"}
    assert found["call"] is Outcome.SKIPPED


def test_a_wrong_clock_is_told_from_a_wrong_certificate(city: Served) -> None:
    def late() -> datetime:
        return datetime.now(UTC) + timedelta(hours=1)

    def reset() -> datetime:
        return datetime(2001, 1, 1, tzinfo=UTC)

    assert failures(target(city), late) == {"clock"}
    assert failures(target(city), reset) == {"server-certificate", "credentials"}


def test_damaged_credentials_and_closed_ports_are_told(city: Served, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(city.home, home)
    (home / "key.pem").unlink()
    assert failures(Target(city.main, directory=home)) == {"credentials"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"127.0.0.1:{taken.getsockname()[1]}"
    assert failures(target(city, nobody)) == {"tls-1.3"}
    assert failures(Target(city.main, nobody, city.home)) == {"provisioning"}


class Middlebox(grpc.GenericRpcHandler):  # type: ignore[misc,unused-ignore]
    """Answers calls itself: keeps no details, holds requests back."""

    def service(self, details: Any) -> Any:
        method = details.method.rpartition("/")[2]
        return grpc.unary_unary_rpc_method_handler(getattr(self, method.lower()))

    def check(self, request: bytes, context: Any) -> bytes:
        return Int64Value(value=1).SerializeToString()

    def heartbeat(self, request: bytes, context: Any) -> bytes:
        now = Timestamp()
        now.FromDatetime(datetime.now(UTC))
        return terminals_pb2.HeartbeatResponse(server_time=now).SerializeToString()

    def getapplication(self, request: bytes, context: Any) -> bytes:
        context.abort(grpc.StatusCode.NOT_FOUND, "not found")
        raise AssertionError

    def getupload(self, request: bytes, context: Any) -> bytes:
        return enrolment_pb2.GetUploadResponse().SerializeToString()

    def upload(self, request: bytes, context: Any) -> bytes:
        context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "held back")
        raise AssertionError


def test_stripped_details_and_buffered_requests_are_found_out(
    city: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devices.terminal.conformance.wire.SETTLE_S", 0.2)
    authority = open_authority(city.directory / "devices", SystemClock(), ["localhost"])
    pair = [(authority.server.key_pem, authority.server.certificate_pem)]
    server = grpc.server(ThreadPoolExecutor(4), handlers=[Middlebox()])
    tls = grpc.ssl_server_credentials(pair, authority.server.ca_pem, True)
    port = server.add_secure_port("127.0.0.1:0", tls)
    server.start()
    found = failures(target(city, f"127.0.0.1:{port}"))
    server.stop(0).wait()
    # TLS 1.2 too: only `anju serve` refuses it.
    assert found == {"tls-1.2", "error-details", "message-size", "deadline"}


# -- A vendor's records ----------------------------------------------------------------------------


def test_each_wrong_record_is_told_with_its_reason_and_place() -> None:
    looked_at = 0
    for path in sorted(VECTORS.glob("*.json")):
        case = json.loads(path.read_text(encoding="utf-8"))
        stated = RecordFormat[case["format"].upper().replace("-", "_")]
        (first, *rest) = examine(path.stem, bytes.fromhex(case["record"]), stated)
        if "reason" not in case:
            assert first.outcome is Outcome.PASSED or "finger views" in first.found, first
            continue
        assert first.outcome is Outcome.FAILED, path.stem
        assert not rest
        assert case["reason"] in first.found, first.found
        if case.get("offset") is not None and case["reason"] != "FORMAT_MISMATCH":
            assert f"at byte {case['offset']}" in first.found
        looked_at += 1
    assert looked_at > 30


def test_the_format_is_found_out_and_a_poor_capture_told_from_a_wrong_record() -> None:
    good = records(1)[0]
    assert [one.outcome for one in examine("a", good)] == [Outcome.PASSED] * 2
    cut = examine("a", good[:-3])
    assert [one.outcome for one in cut] == [Outcome.FAILED]
    assert "ISO/IEC 19794-2:2005" in cut[0].found
    assert "65,536" in examine("a", bytes(70_000))[0].found
    (junk,) = examine("a", b"GIF89a")
    assert junk.outcome is Outcome.FAILED
    few = next(VECTORS.glob("valid*iso*2011*.json"), None)
    assert few is not None
    poor = examine("a", bytes.fromhex(json.loads(few.read_text())["record"]))
    assert "no use" in poor[-1].found or "finger views" in poor[-1].found
