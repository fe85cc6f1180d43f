"""The server under attack, ``anju serve`` in a process of its own, and what it shows of it.

Every attack is held against the same three: the status and reason that its caller gets, a number in
the metrics, and an entry in the audit log (or, where TLS knows nobody yet, a line in the log).
"""

from __future__ import annotations

import itertools
import json
import re
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from anju.v1 import audit_pb2, audit_pb2_grpc, terminals_pb2, terminals_pb2_grpc
from devices.authority import SERVER_NAME
from devices.credentials import Credentials, load, load_key
from devices.terminal import Connection, connect, log_in, provision
from devices.terminal.wire import create_token
from identity.server_process import ServerProcess

PATIENCE_S = 15.0
"""For what the server writes beside the answer: gRPC's log, a call's metrics."""
SOON_S = 3.0
"""An honest call takes milliseconds; on a machine busy with other things, no more than this."""
REFUSALS = "anju_refusals_total"


def until(holds: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    end = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.03)


@dataclass(frozen=True)
class Target:
    """A running server, and what it lets an operator see."""

    directory: Path
    process: ServerProcess
    administrator: Connection
    spare: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def main(self) -> str:
        return str(self.process.serving["address"])

    @property
    def provisioning(self) -> str:
        return str(self.process.serving["provisioning_address"])

    @property
    def own(self) -> Credentials:
        return load(self.directory / "operators" / "operator-1")

    def login_key(self, number: int = 1) -> EllipticCurvePrivateKey:
        return load_key(self.directory / "operators" / f"operator-{number}")

    def new_terminal(self, station: str = "east-gate", operator: str = "operator-1") -> Path:
        """A terminal of its own for a test, because the log counts repetitions of one caller."""
        name = f"attacker-{next(self.spare)}"
        home = self.directory / "terminals" / name
        token = create_token(self.administrator, station, name)
        provision(self.provisioning, token, home, self.main)
        if operator:
            log_in(home, operator, login_key=self.login_key())
        return home

    def revoke_terminal(self, name: str) -> None:
        stub = terminals_pb2_grpc.TerminalServiceStub(self.administrator.channel)
        stub.RevokeTerminal(
            terminals_pb2.RevokeTerminalRequest(
                idempotency_key=f"revoke-{name}", terminal_id=name, reason="stolen"
            )
        )

    # -- what it shows --

    def metric(self, name: str, **labels: str) -> float:
        address = self.process.serving["metrics_address"]
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            lines = str(answer.read(), "utf-8").splitlines()
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        total = 0.0
        for line in lines:
            found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if found and wanted <= set((found[1] or "").split(",")):
                total += float(found[2])
        return total

    def handshakes(self) -> list[str]:
        """Reasons of the TLS handshakes that failed, from the log."""
        lines = (self.directory / "server.log").read_text(encoding="utf-8").splitlines()
        return [
            json.loads(line)["reason"]
            for line in lines
            if '"event": "tls handshake failed"' in line
        ]

    def entries(self) -> list[audit_pb2.AuditEntry]:
        stub = audit_pb2_grpc.AuditServiceStub(self.administrator.channel)
        found: list[audit_pb2.AuditEntry] = []
        while page := stub.ListEntries(
            audit_pb2.ListEntriesRequest(
                after_sequence=found[-1].sequence if found else 0, page_size=1_000
            )
        ).entries:
            found += page
        return found

    def resident_bytes(self) -> int:
        """The server's memory now; :meth:`peak_bytes` is counted from here."""
        Path(f"/proc/{self.process.process.pid}/clear_refs").write_text("5", encoding="ascii")
        return self._memory("VmRSS")

    def peak_bytes(self) -> int:
        return self._memory("VmHWM")

    def _memory(self, what: str) -> int:
        status = Path(f"/proc/{self.process.process.pid}/status").read_text(encoding="ascii")
        return 1024 * int(re.findall(rf"{what}:\s+(\d+) kB", status)[0])

    @contextmanager
    def counting(self, reason: str, least: int = 1, most: int | None = None) -> Iterator[None]:
        """The block makes the refusals of that reason go up, by as much as is said."""
        before = self.metric(REFUSALS, reason=reason)
        yield
        until(
            lambda: self.metric(REFUSALS, reason=reason) >= before + least,
            f"refusals of {reason} did not go up",
        )
        if most is not None:
            assert self.metric(REFUSALS, reason=reason) <= before + most

    def has_entry(self, who: str, action: str, outcome: str) -> bool:
        return (who, action, outcome) in {
            (one.who, one.action, one.outcome) for one in self.entries()
        }

    # -- ways in --

    def socket(self, address: str = "") -> socket.socket:
        host, _, port = (address or self.main).rpartition(":")
        return socket.create_connection((host, int(port)), timeout=20)

    def tls(self, home: Path | None = None) -> ssl.SSLSocket:
        """A connection with a certificate that is accepted, for bytes that gRPC would not send."""
        files = home or self.directory / "operators" / "operator-1"
        context = ssl.create_default_context(cadata=self.own.ca_pem.decode())
        context.load_cert_chain(files / "certificate.pem", files / "key.pem")
        context.set_alpn_protocols(["h2"])
        return context.wrap_socket(self.socket(), server_hostname=SERVER_NAME)

    @contextmanager
    def channel(self, credentials: grpc.ChannelCredentials, address: str = "") -> Iterator[Any]:
        options = [
            ("grpc.ssl_target_name_override", SERVER_NAME),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_send_message_length", -1),
        ]
        with grpc.secure_channel(address or self.main, credentials, options) as channel:
            yield channel


class Honest:
    """A terminal that goes about its work beside the attacks.

    Within its quota of 20 calls a second.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._took_s: list[float] = []
        self._failures: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def forget(self) -> None:
        """Look at calls from now on only; the terminal has its connection."""
        until(lambda: bool(self._took_s), "nobody was served")
        self._took_s.clear()

    def require_served(self) -> None:
        """Fail unless all calls since then were answered, and soon; waits for one more to be."""
        known = len(self._took_s)
        until(lambda: len(self._took_s) > known, "nobody was served")
        assert not self._failures
        assert max(self._took_s) < SOON_S

    def _run(self) -> None:
        with connect(self._home) as connection:
            stub = terminals_pb2_grpc.TerminalServiceStub(connection.channel)
            while not self._over.wait(0.06):
                begun = time.monotonic()
                try:
                    stub.Heartbeat(terminals_pb2.HeartbeatRequest(), timeout=PATIENCE_S)
                except grpc.RpcError as error:
                    self._failures.append(str(error))
                self._took_s.append(time.monotonic() - begun)
