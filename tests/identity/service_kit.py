"""A whole installation with its server, in this process or another, over mTLS on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from anju.v1 import common_pb2, enrolment_pb2
from devices import credentials, keys
from devices.certificates import principal_from_certificate
from devices.keys import PrivateKey
from devices.operators import Operators
from devices.proof import login_text
from devices.terminal import Connection, OperatorSession, connect, log_in, provision
from devices.terminal.session import keep, session_metadata
from devices.terminal.wire import create_token, enrol_request, new_idempotency_key
from identity.app import Installation, Server, open_installation
from identity.server_process import loopback_toml
from identity.setup import create_installation
from tests.identity.kit import person, records

Answer = TypeVar("Answer", bound=Message)
PURPOSE = common_pb2.Purpose(code="counter-service", case_reference="case 7")


def admit_terminal(installation: Installation, station: str, terminal: str) -> Path:
    """Provision a terminal without a server in between; returns its credentials."""
    home = installation.directory / "terminals" / terminal
    token = installation.provisioning.create_token(station, terminal).token
    csr = credentials.signing_request(credentials.new_key(home))
    done = installation.provisioning.provision(token, csr, "in-process")
    address = installation.config.server.address
    credentials.save(home, done.certificate, done.ca_certificate, address)
    open_session(installation, home)
    return home


def open_session(
    installation: Installation,
    home: Path,
    operator: str = "operator-1",
    operators: Operators | None = None,
) -> None:
    """Log an operator in at a terminal without a server in between; by another clock, if given."""
    operators = operators or installation.operators
    terminal = principal_from_certificate(credentials.load(home).certificate_pem)
    key = Ed25519PrivateKey.generate()
    challenge = operators.challenge(terminal, operator)
    login_key = credentials.load_key(installation.directory / "operators" / operator)
    text = login_text(operator, terminal.id, challenge, keys.public_bytes(key))
    opened = operators.log_in_with_key(
        terminal, operator, challenge, keys.sign(login_key, text), keys.public_bytes(key)
    )
    keep(
        home,
        OperatorSession(
            session_id=opened.session.session_id,
            operator_id=operator,
            token=opened.token,
            key=key,
            opened_at=opened.session.opened_at,
            expires_at=opened.session.expires_at,
            begun_at=opened.session.opened_at,
            used_at=opened.session.opened_at,
            idle=opened.idle_timeout,
        ),
    )


class _Shown(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc,unused-ignore]
    """Shows who is logged in, on every call."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        shown = (*(details.metadata or ()), *session_metadata(self._home))
        changed = _Details(details.method, details.timeout, shown, details.credentials)
        return continuation(changed, request)


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None = None
    compression: Any = None


def working_at(home: Path) -> Connection:
    """The terminal's connection, with whoever is logged in there on every call."""
    connection = connect(home)
    connection.channel = grpc.intercept_channel(connection.channel, _Shown(home))
    return connection


@dataclass(frozen=True)
class Service:
    """A running server and who talks to it."""

    directory: Path
    installation: Installation
    server: Server

    def operator(self, number: int = 1) -> Connection:
        return connect(self.directory / "operators" / f"operator-{number}")

    def terminal(self, station: str, terminal: str) -> Connection:
        """A newly provisioned terminal, with an operator logged in."""
        home = self.directory / "terminals" / terminal
        with self.operator() as operator:
            token = create_token(operator, station, terminal)
        provision(self.server.provisioning_address, token, home, self.server.address)
        log_in(home, "operator-1", login_key=self.login_key())
        return working_at(home)

    def login_key(self, number: int = 1) -> PrivateKey:
        return credentials.load_key(self.directory / "operators" / f"operator-{number}")


@contextmanager
def running(directory: Path) -> Iterator[Service]:
    """Make an installation and serve it from this process."""
    toml, _ = loopback_toml()
    create_installation(directory, toml)
    with open_installation(directory) as installation:
        server = Server(installation)
        server.start()
        yield Service(directory, installation, server)
        server.stop()


@dataclass(frozen=True)
class Refusal:
    code: grpc.StatusCode
    reason: str
    detail: str
    message: str


def refusal(call: Callable[[], Any]) -> Refusal:
    """How a call was refused; fails the test if it was not."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return refusal_of(caught.value)


def refusal_of(error: Any) -> Refusal:
    status = rpc_status.from_call(error)
    info = ErrorInfo()
    for detail in status.details if status is not None else ():
        if detail.Is(ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
            assert info.domain == "anju"
    return Refusal(
        error.code(), info.reason, info.metadata.get("detail", ""), error.details() or ""
    )


def today() -> date:
    return datetime.now(UTC).date()


def application(
    fingers: int, name: int | None = None, impression: int = 0, permit: bool = True, key: str = ""
) -> enrolment_pb2.EnrolRequest:
    who = person(fingers if name is None else name, datetime.now(UTC))
    return enrol_request(
        who, records(fingers, impression), permit, None, key or new_idempotency_key()
    )


def samples_of(fingers: int, impression: int = 0) -> list[common_pb2.Sample]:
    return [
        common_pb2.Sample(format=common_pb2.SAMPLE_FORMAT_ISO_19794_2_2005, data=record)
        for record in records(fingers, impression)
    ]
