"""A whole installation with its server, in this process or another, over mTLS on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from anju.v1 import common_pb2, enrolment_pb2
from devices import credentials
from devices.terminal import Connection, connect, provision
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
    return home


@dataclass(frozen=True)
class Service:
    """A running server and who talks to it."""

    directory: Path
    installation: Installation
    server: Server

    def operator(self, number: int = 1) -> Connection:
        return connect(self.directory / "operators" / f"operator-{number}")

    def terminal(self, station: str, terminal: str) -> Connection:
        """A newly provisioned terminal."""
        home = self.directory / "terminals" / terminal
        with self.operator() as operator:
            token = create_token(operator, station, terminal)
        provision(self.server.provisioning_address, token, home, self.server.address)
        return connect(home)


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
    error: Any = caught.value
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
