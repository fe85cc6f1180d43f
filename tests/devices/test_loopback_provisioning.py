"""Provisioning over real TLS: who gets a certificate, and who is kept out."""

from __future__ import annotations

import socket
import ssl
import warnings
from concurrent import futures
from dataclasses import replace
from datetime import UTC, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from anju.v1 import terminals_pb2, terminals_pb2_grpc
from devices import credentials
from devices.authority import Authority, init_authority
from devices.certificates import principal_from_certificate
from devices.errors import (
    CertificateInvalidError,
    CredentialsError,
    RemoteError,
    ServerUntrustedError,
    TokenInvalidError,
    UnreachableError,
)
from devices.provisioning import Provisioning
from devices.terminal import Connection, TerminalClient, connect, provision
from devices.terminal.pin import pinned_certificate
from devices.terminal.retry import RetryPolicy
from devices.token import new_token
from devices.types import Principal, Provisioned, Role, TerminalState
from tests.devices.fakes import FakeClock, MemoryTerminalStore
from tests.devices.loopback import Proxy, Register, register

IMPATIENT = RetryPolicy(attempt_s=2.0, first_wait_s=0.05, longest_wait_s=0.1)


def refused(call: object, status: str, reason: str) -> None:
    assert callable(call)
    with pytest.raises(RemoteError) as caught:
        call()
    assert (caught.value.status, caught.value.reason) == (status, reason)


def test_a_token_becomes_a_certificate_that_the_main_port_accepts(
    running: Register, provisioning: Provisioning, store: MemoryTerminalStore, tmp_path: Path
) -> None:
    token = provisioning.create_token("hall", "t-1").token
    answer = provision(running.provisioning, token.lower(), tmp_path / "t", running.main)
    assert (answer.terminal_id, answer.station_id) == ("t-1", "hall")
    assert (tmp_path / "t/key.pem").stat().st_mode & 0o777 == 0o600
    with TerminalClient(tmp_path / "t") as terminal:
        refused(lambda: terminal.application("a-1"), "NOT_FOUND", "APPLICATION_UNKNOWN")
    active = store.terminal("t-1")
    assert active is not None
    assert active.state is TerminalState.ACTIVE
    assert active.last_contact is not None


def test_the_main_port_is_one_below_unless_named(
    running: Register, provisioning: Provisioning, tmp_path: Path
) -> None:
    token = provisioning.create_token("hall", "t-1").token
    provision(running.provisioning, token, tmp_path / "t")
    port = int(running.provisioning.rpartition(":")[2])
    assert credentials.load(tmp_path / "t").address == f"127.0.0.1:{port - 1}"


def test_a_typo_is_noticed_before_anything_is_sent(
    provisioning: Provisioning, tmp_path: Path
) -> None:
    token = provisioning.create_token("hall", "t-1").token
    typo = ("1" if token[0] != "1" else "2") + token[1:]
    with pytest.raises(TokenInvalidError, match="mistyped"):
        provision("127.0.0.1:1", typo, tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_an_unknown_token_is_refused(
    running: Register, authority: Authority, tmp_path: Path
) -> None:
    token = new_token(authority.server_fingerprint).text()
    refused(
        lambda: provision(running.provisioning, token, tmp_path / "t"),
        "UNAUTHENTICATED",
        "TOKEN_INVALID",
    )
    assert not (tmp_path / "t/certificate.pem").exists()


def test_an_expired_token_is_refused(
    running: Register, provisioning: Provisioning, clock: FakeClock, tmp_path: Path
) -> None:
    token = provisioning.create_token("hall", "t-1").token
    clock.advance(timedelta(hours=25))
    refused(
        lambda: provision(running.provisioning, token, tmp_path / "t"),
        "UNAUTHENTICATED",
        "TOKEN_INVALID",
    )


def test_a_used_token_is_refused_on_another_terminal(
    running: Register, provisioning: Provisioning, tmp_path: Path
) -> None:
    token = provisioning.create_token("hall", "t-1").token
    provision(running.provisioning, token, tmp_path / "first", running.main)
    refused(
        lambda: provision(running.provisioning, token, tmp_path / "second"),
        "UNAUTHENTICATED",
        "TOKEN_INVALID",
    )


def test_a_terminal_that_lost_the_answer_asks_again(
    running: Register, provisioning: Provisioning, tmp_path: Path
) -> None:
    token = provisioning.create_token("hall", "t-1").token
    first = provision(running.provisioning, token, tmp_path / "t", running.main)
    (tmp_path / "t/certificate.pem").unlink()  # as if the power went before it was written
    again = provision(running.provisioning, token, tmp_path / "t", running.main)
    assert again.certificate == first.certificate


def test_a_terminal_that_was_revoked_is_provisioned_over_what_it_has(
    running: Register, provisioning: Provisioning, tmp_path: Path
) -> None:
    home = tmp_path / "t"
    provision(
        running.provisioning, provisioning.create_token("hall", "t-1").token, home, running.main
    )
    before = credentials.load(home)
    token = provisioning.reprovision("t-1", "lost").token
    with TerminalClient(home) as lost, pytest.raises(RemoteError, match="CERTIFICATE_REVOKED"):
        lost.application("a-1")
    provision(running.provisioning, token, home, running.main)
    after = credentials.load(home)
    assert after.key_pem != before.key_pem
    assert not list(home.glob("next-*"))
    with TerminalClient(home) as found, pytest.raises(RemoteError, match="APPLICATION_UNKNOWN"):
        found.application("a-1")


def test_a_terminal_goes_on_working_until_its_new_certificate_is_there(
    running: Register, provisioning: Provisioning, tmp_path: Path
) -> None:
    home = tmp_path / "t"
    provision(
        running.provisioning, provisioning.create_token("hall", "t-1").token, home, running.main
    )
    before = credentials.load(home)
    wrong = new_token(provisioning._authority.server_fingerprint).text()
    with pytest.raises(RemoteError, match="TOKEN_INVALID"):
        provision(running.provisioning, wrong, home, running.main)
    assert credentials.load(home) == before
    with TerminalClient(home) as terminal, pytest.raises(RemoteError, match="APPLICATION_UNKNOWN"):
        terminal.application("a-1")


def test_the_directory_of_another_terminal_is_never_overwritten(
    running: Register, provisioning: Provisioning, tmp_path: Path
) -> None:
    home = tmp_path / "t"
    provision(
        running.provisioning, provisioning.create_token("hall", "t-1").token, home, running.main
    )
    before = credentials.load(home)
    token = provisioning.create_token("hall", "t-2").token
    with pytest.raises(CredentialsError, match="directory of terminal:t-1"):
        provision(running.provisioning, token, home, running.main)
    assert credentials.load(home) == before


def test_guessing_is_stopped(
    running: Register, provisioning: Provisioning, authority: Authority, tmp_path: Path
) -> None:
    for _ in range(10):
        guess = new_token(authority.server_fingerprint).text()
        refused(
            lambda: provision(running.provisioning, guess, tmp_path / "t"),  # noqa: B023
            "UNAUTHENTICATED",
            "TOKEN_INVALID",
        )
    good = provisioning.create_token("hall", "t-1").token
    refused(
        lambda: provision(running.provisioning, good, tmp_path / "t"),
        "RESOURCE_EXHAUSTED",
        "TOO_MANY_ATTEMPTS",
    )


def test_a_man_in_the_middle_gets_nothing(
    provisioning: Provisioning, clock: FakeClock, tmp_path: Path
) -> None:
    """He runs the same software, with an authority of his own."""
    token = provisioning.create_token("hall", "t-1").token
    his = init_authority(tmp_path / "his", clock)
    asked: list[str] = []

    class Curious(Provisioning):
        def provision(self, token: str, csr: bytes, peer: str) -> object:  # type: ignore[override]
            asked.append(token)
            raise TokenInvalidError("no")

    with (
        register(his, Curious(his, MemoryTerminalStore(), clock)) as middle,
        pytest.raises(ServerUntrustedError, match="nothing was sent"),
    ):
        provision(middle.provisioning, token, tmp_path / "t", policy=IMPATIENT)
    assert asked == []
    assert not (tmp_path / "t/certificate.pem").exists()


def test_a_man_in_the_middle_who_lets_the_first_look_pass_gets_nothing(
    running: Register,
    authority: Authority,
    provisioning: Provisioning,
    clock: FakeClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The look goes to the real server, the call itself to him: gRPC must refuse him."""
    token = provisioning.create_token("hall", "t-1").token
    his = init_authority(tmp_path / "his", clock)
    asked: list[str] = []

    class Curious(Provisioning):
        def provision(self, token: str, csr: bytes, peer: str) -> object:  # type: ignore[override]
            asked.append(token)
            raise TokenInvalidError("no")

    with (
        register(his, Curious(his, MemoryTerminalStore(), clock)) as middle,
        Proxy(running.provisioning) as proxy,
    ):
        real_look = pinned_certificate

        def look_then_switch(address: str, fingerprint: str, timeout_s: float) -> object:
            certificate = real_look(address, fingerprint, timeout_s)
            proxy.target(middle.provisioning)
            return certificate

        monkeypatch.setattr("devices.terminal.client.pinned_certificate", look_then_switch)
        with pytest.raises(ServerUntrustedError, match="authority vouches"):
            provision(proxy.address, token, tmp_path / "t", policy=IMPATIENT)
        assert proxy.connections >= 2
    assert asked == []


class Odd(Provisioning):
    """Answers with one field of somebody else."""

    odd: dict[str, bytes]

    def provision(self, token: str, csr: bytes, peer: str) -> Provisioned:
        return replace(super().provision(token, csr, peer), **self.odd)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "error", "message"),
    [
        ("ca_certificate", ServerUntrustedError, "not its own"),
        ("certificate", CredentialsError, "another key"),
    ],
)
def test_an_answer_for_somebody_else_is_not_stored(
    authority: Authority,
    store: MemoryTerminalStore,
    clock: FakeClock,
    tmp_path: Path,
    field: str,
    error: type[Exception],
    message: str,
) -> None:
    odd = Odd(authority, store, clock)
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    other = authority.issue_client(key, Role.TERMINAL, "t-1", "hall")
    odd.odd = {
        "ca_certificate": init_authority(tmp_path / "other", clock).certificate,
        "certificate": other.public_bytes(Encoding.DER),
    }
    odd.odd = {field: odd.odd[field]}
    token = odd.create_token("hall", "t-1").token
    with register(authority, odd) as running, pytest.raises(error, match=message):
        provision(running.provisioning, token, tmp_path / "t", running.main)
    assert [path.name for path in (tmp_path / "t").iterdir()] == ["key.pem"]


def test_a_leaf_of_the_same_authority_is_no_substitute_for_the_pinned_one(
    authority: Authority, provisioning: Provisioning, tmp_path: Path
) -> None:
    """A terminal's certificate, used as a server's, satisfies neither the pin nor the root."""
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = authority.issue_client(key.public_key(), Role.TERMINAL, "t-9", "hall")
    (tmp_path / "k").write_bytes(credentials.key_to_pem(key))
    (tmp_path / "c").write_bytes(leaf.public_bytes(Encoding.PEM))
    pair = [((tmp_path / "k").read_bytes(), (tmp_path / "c").read_bytes())]
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pair))
    server.start()
    authority.write_client(tmp_path / "op", Role.OPERATOR, "op-1", f"127.0.0.1:{port}")
    try:
        with pytest.raises(ServerUntrustedError):
            pinned_certificate(f"127.0.0.1:{port}", authority.server_fingerprint, 2.0)
        with (
            connect(tmp_path / "op", policy=IMPATIENT) as connection,
            pytest.raises(ServerUntrustedError),
        ):
            list_terminals(connection)
    finally:
        server.stop(0).wait()


def list_terminals(connection: Connection) -> terminals_pb2.ListTerminalsResponse:
    stub = terminals_pb2_grpc.TerminalServiceStub(connection.channel)
    return connection.call(stub.ListTerminals, terminals_pb2.ListTerminalsRequest(), 1.0)


def test_an_operator_lists_and_revokes(
    running: Register, authority: Authority, clock: FakeClock, tmp_path: Path
) -> None:
    authority.write_client(tmp_path / "op", Role.OPERATOR, "op-1", running.main)
    with connect(tmp_path / "op") as operator:
        stub = terminals_pb2_grpc.TerminalServiceStub(operator.channel)
        made = operator.call(
            stub.CreateProvisioningToken,
            terminals_pb2.CreateProvisioningTokenRequest(station_id="hall", terminal_id="t-1"),
        )
        provision(running.provisioning, made.token, tmp_path / "t", running.main)
        listed = list_terminals(operator).terminals
        assert not listed[0].HasField("last_contact")
        assert [one.terminal_id for one in listed] == ["t-1"]
        assert listed[0].state == terminals_pb2.TERMINAL_STATE_ACTIVE
        with TerminalClient(tmp_path / "t") as terminal:
            refused(lambda: terminal.application("a-1"), "NOT_FOUND", "APPLICATION_UNKNOWN")
            [seen] = list_terminals(operator).terminals
            assert seen.last_contact.ToDatetime(tzinfo=UTC) == clock.now()
            assert seen.certificate_not_after.ToDatetime(tzinfo=UTC) > clock.now()
            request = terminals_pb2.RevokeTerminalRequest(terminal_id="t-1", reason="stolen")
            revoked = operator.call(stub.RevokeTerminal, request).terminal
            assert revoked.state == terminals_pb2.TERMINAL_STATE_REVOKED
            # On the connection that is open already:
            refused(lambda: terminal.application("a-1"), "PERMISSION_DENIED", "CERTIFICATE_REVOKED")
        refused(
            lambda: operator.call(
                stub.RevokeTerminal,
                terminals_pb2.RevokeTerminalRequest(terminal_id="t-9", reason="lost"),
            ),
            "NOT_FOUND",
            "TERMINAL_UNKNOWN",
        )


def test_a_terminal_renews_its_certificate(
    running: Register, provisioning: Provisioning, clock: FakeClock, tmp_path: Path
) -> None:
    token = provisioning.create_token("hall", "t-1").token
    provision(running.provisioning, token, tmp_path / "t", running.main)
    before = credentials.load(tmp_path / "t").certificate_pem
    with TerminalClient(tmp_path / "t") as terminal:
        assert not terminal.renewal_due()
        terminal.renew()
    after = credentials.load(tmp_path / "t").certificate_pem
    assert principal_from_certificate(after) == principal_from_certificate(before)
    assert after != before
    with TerminalClient(tmp_path / "t") as terminal:
        refused(lambda: terminal.application("a-1"), "NOT_FOUND", "APPLICATION_UNKNOWN")


def test_a_client_of_another_authority_is_kept_out(
    running: Register, authority: Authority, clock: FakeClock, tmp_path: Path
) -> None:
    other = init_authority(tmp_path / "other", clock)
    other.write_client(tmp_path / "op", Role.OPERATOR, "op-1", running.main)
    with (
        connect(tmp_path / "op", policy=IMPATIENT) as connection,
        pytest.raises(ServerUntrustedError),
    ):
        list_terminals(connection)  # the client notices first
    ca = credentials.load(tmp_path / "op")
    (tmp_path / "op/ca.pem").write_bytes(authority.server.ca_pem)
    assert ca.ca_pem != authority.server.ca_pem
    with (
        connect(tmp_path / "op", policy=IMPATIENT) as connection,
        pytest.raises(UnreachableError),
    ):
        list_terminals(connection)  # it trusts the server, but the server does not trust it


def test_a_client_without_a_certificate_is_kept_out_of_the_main_port(
    running: Register, authority: Authority
) -> None:
    tls = grpc.ssl_channel_credentials(authority.server.ca_pem)
    with grpc.secure_channel(running.main, tls) as channel:
        stub = terminals_pb2_grpc.TerminalServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ListTerminals(terminals_pb2.ListTerminalsRequest(), timeout=2.0)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_the_server_certificate_is_no_client_certificate(
    running: Register, authority: Authority
) -> None:
    server = authority.server
    tls = grpc.ssl_channel_credentials(server.ca_pem, server.key_pem, server.certificate_pem)
    with grpc.secure_channel(running.main, tls) as channel:
        stub = terminals_pb2_grpc.TerminalServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ListTerminals(terminals_pb2.ListTerminalsRequest(), timeout=2.0)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_an_expired_client_is_refused_by_itself_and_by_the_server(
    running: Register, authority: Authority, clock: FakeClock, tmp_path: Path
) -> None:
    clock.advance(timedelta(days=-10))
    authority.write_client(
        tmp_path / "op", Role.OPERATOR, "op-1", running.main, lifetime=timedelta(days=1)
    )
    with pytest.raises(CertificateInvalidError, match="expired"):
        connect(tmp_path / "op")
    expired = credentials.load(tmp_path / "op")
    tls = grpc.ssl_channel_credentials(expired.ca_pem, expired.key_pem, expired.certificate_pem)
    with grpc.secure_channel(running.main, tls) as channel:
        stub = terminals_pb2_grpc.TerminalServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ListTerminals(terminals_pb2.ListTerminalsRequest(), timeout=2.0)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_operators_and_terminals_are_told_apart(
    running: Register, authority: Authority, tmp_path: Path
) -> None:
    authority.write_client(tmp_path / "op", Role.OPERATOR, "op-1", running.main)
    loaded = credentials.load(tmp_path / "op")
    assert principal_from_certificate(loaded.certificate_pem) == Principal(Role.OPERATOR, "op-1")
    with connect(tmp_path / "op") as operator:
        stub = terminals_pb2_grpc.TerminalServiceStub(operator.channel)
        csr = credentials.signing_request(credentials.load_key(tmp_path / "op"))
        request = terminals_pb2.RenewCertificateRequest(certificate_signing_request=csr)
        refused(
            lambda: operator.call(stub.RenewCertificate, request),
            "UNAUTHENTICATED",
            "CERTIFICATE_INVALID",
        )


@pytest.mark.parametrize("port", ["main", "provisioning"])
def test_old_tls_is_refused(
    running: Register, authority: Authority, tmp_path: Path, port: str
) -> None:
    """gRPC's own lower bound is TLS 1.2; nothing here may lower it (RFC 8996)."""
    host, _, number = getattr(running, port).rpartition(":")
    authority.write_client(tmp_path / "op", Role.OPERATOR, "op-1", running.main)

    def handshake(highest: ssl.TLSVersion) -> str | None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.load_cert_chain(tmp_path / "op/certificate.pem", tmp_path / "op/key.pem")
        context.set_ciphers("ALL:@SECLEVEL=0")  # or OpenSSL itself would refuse to offer TLS 1.1
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = highest
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection((host, int(number)), 5) as raw,
            context.wrap_socket(raw) as tls,
        ):
            return tls.version()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert handshake(ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
        with pytest.raises(ssl.SSLError, match=r"EOF|PROTOCOL_VERSION"):
            handshake(ssl.TLSVersion.TLSv1_1)


def test_nobody_there_is_an_error_that_says_so(provisioning: Provisioning, tmp_path: Path) -> None:
    token = provisioning.create_token("hall", "t-1").token
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(UnreachableError, match=f"127.0.0.1:{port} does not answer"):
        provision(f"127.0.0.1:{port}", token, tmp_path / "t", deadline_s=0.3, policy=IMPATIENT)
