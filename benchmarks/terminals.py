"""How does the server carry thousands of connected terminals, and enrolments beside them?

    python -m benchmarks.terminals [--connections 1000 5000] [--rates 5 10 100] [--quick] …

The server runs in a process of its own. A second process holds the connections: mutual TLS 1.3,
HTTP/2 begun, pings answered, and nothing else, as a terminal without work; written on sockets,
because 5,000 gRPC channels would cost the client more than the server. They share the certificates
of the terminals that work. Then, beside them, `--terminals` terminals (real gRPC channels) enrol
newcomers at fixed rates, open loop: a call begins when its time has come, whether or not the last
one is answered, and its latency counts from then. A refused call is counted, not repeated. At the
end the server is stopped, and every application that was acknowledged is looked up in its database.

Server, holder and clients share this machine's cores, as a city's terminals would not; the server's
own CPU time for each enrolment is given beside.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import selectors
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from prometheus_client.parser import text_string_to_metric_families
from rich.table import Table

from anju.v1 import enrolment_pb2
from benchmarks.common import environment, wide_console, write_json
from benchmarks.service import ARRIVAL, SEED, _fill, _resident_mib
from devices import credentials
from devices.authority import SERVER_NAME
from devices.simulator import fleet
from devices.terminal import connect
from devices.terminal.session import session_metadata
from devices.terminal.wire import enrol_request, new_idempotency_key
from identity.app import open_installation
from identity.example_population import Fingers, example_person
from identity.server_process import loopback_toml, serving
from identity.setup import create_installation
from identity.transport import allow_open_files
from identity.types import ApplicationState

TERMINALS = "sim-[0-9]*"
METHOD = "/anju.v1.EnrolmentService/Enrol"
DEADLINE_S = 20.0
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"
SETTINGS_ACK = b"\0\0\0\x04\x01\0\0\0\0"
SETTINGS, PING, GOAWAY = 4, 6, 7
STAGES = ("accept", "search", "decision_wait", "decide", "issue")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--connections", type=int, nargs="+", default=[1_000, 5_000])
    parser.add_argument("--terminals", type=int, default=32, help="that enrol, beside the idle")
    parser.add_argument("--rates", type=float, nargs="+", default=[2.0, 5.0, 10.0, 100.0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each rate")
    parser.add_argument("--register", type=int, default=500, help="people enrolled beforehand")
    parser.add_argument("--quick", action="store_true", help="200 connections, 3 a second, 20 s")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--hold", nargs=3, metavar=("ADDRESS", "COUNT", "DIR"), help="internal")
    arguments = parser.parse_args()
    if arguments.hold:
        address, count, directory = arguments.hold
        hold(address, int(count), Path(directory))
        return
    if arguments.quick:
        arguments.connections, arguments.rates, arguments.seconds = [200], [3.0], 20.0
        arguments.register, arguments.terminals = 30, 8
    with tempfile.TemporaryDirectory(prefix="anju-terminals-") as folder:
        figures = measure(
            Path(folder) / "work",
            arguments.connections,
            arguments.rates,
            arguments.seconds,
            arguments.register,
            arguments.terminals,
        )
    show(figures)
    if arguments.json:
        write_json(arguments.json, figures)
    if figures["lost"]:
        sys.exit(f"{figures['lost']} acknowledged applications are not in the register")


def measure(
    directory: Path,
    connections: Sequence[int],
    rates: Sequence[float],
    seconds: float,
    register: int,
    terminals: int,
) -> dict[str, Any]:
    """The figures of one run: memory by connections, then a row for each rate offered.

    Args:
        connections: ascending; the last number stays for the load.
        rates: enrolments offered a second.
        seconds: of each rate.
        register: people enrolled beforehand.
        terminals: gRPC channels that the enrolments come from.
    """
    allow_open_files(max(connections))
    toml, provisioning_address = loopback_toml()
    create_installation(directory, toml)
    fingers = Fingers(SEED)
    _fill(directory, register, fingers)
    homes = directory / "terminals"
    memory: dict[int, float] = {}
    rows = []
    acknowledged: dict[str, str] = {}
    with serving(directory) as server, contextlib.ExitStack() as stack:
        operator = stack.enter_context(connect(directory / "operators" / "operator-1"))
        for terminal in fleet(homes, operator, "bench", terminals, provisioning_address):
            terminal.close()
        address = server.serving["address"]
        metrics = server.serving["metrics_address"]
        asyncio.run(offer(homes, address, requests(fingers, register, 40), 4.0))  # warm it up
        memory[0] = _resident_mib(server.process.pid)
        held = 0
        connect_s = {}
        for count in connections:
            started = time.perf_counter()
            stack.enter_context(holding(address, count - held, homes))
            connect_s[count] = time.perf_counter() - started
            held = count
            time.sleep(1.0)
            memory[count] = _resident_mib(server.process.pid)
        number = register + 40
        for rate in rates:
            offered = requests(fingers, number, int(rate * seconds))
            number += len(offered)
            before = scrape(metrics)
            load = asyncio.run(offer(homes, address, offered, rate))
            rows.append({"offered_per_s": rate, **load.figures(), **spent(before, scrape(metrics))})
            acknowledged.update(load.acknowledged)
        connected = scrape(metrics)["anju_connections{port=main}"]
    states = look_up(directory, acknowledged)
    most = max(connections)
    return {
        "register_people": register,
        "terminals": terminals,
        "resident_mib": memory,
        "kib_per_connection": (memory[most] - memory[0]) * 1024 / most,
        "connect_s": connect_s,
        "connected_at_the_end": connected,
        "rates": rows,
        "acknowledged": len(acknowledged),
        "lost": len(acknowledged) - sum(states.values()),
        "states": dict(states),
        "environment": environment(),
    }


# -- the load ----


def requests(fingers: Fingers, first: int, count: int) -> list[tuple[str, bytes]]:
    """Idempotency key and request of newcomers, drawn before the clock runs."""
    made = []
    for index in range(first, first + count):
        key = new_idempotency_key()
        person = example_person(index, ARRIVAL)
        request = enrol_request(person, fingers.records(index, 0), False, datetime.now(UTC), key)
        made.append((key, request.SerializeToString()))
    return made


@dataclass
class Load:
    """What came of the calls of one rate."""

    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    acknowledged: dict[str, str] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    hinted: int = 0
    late_s: float = 0.0

    def figures(self) -> dict[str, Any]:
        ordered = sorted(self.latencies_s)

        def rank(share: float) -> float:
            return ordered[int(share * (len(ordered) - 1))] * 1e3 if ordered else float("nan")

        return {
            "sustained_per_s": len(ordered) / self.seconds,
            "p50_ms": rank(0.5),
            "p99_ms": rank(0.99),
            "refused": dict(self.refused),
            "refused_with_retry_hint": self.hinted,
            "generator_late_s": self.late_s,
        }


async def offer(homes: Path, address: str, offered: list[tuple[str, bytes]], rate: float) -> Load:
    """Begin a call every 1 / rate seconds, from each terminal in turn."""
    load = Load()
    async with contextlib.AsyncExitStack() as stack:
        lines: list[tuple[Any, Any]] = []
        for home in sorted(homes.glob(TERMINALS)):
            own = credentials.load(home)
            channel = grpc.aio.secure_channel(
                address,
                grpc.ssl_channel_credentials(own.ca_pem, own.key_pem, own.certificate_pem),
                [
                    ("grpc.ssl_target_name_override", SERVER_NAME),
                    ("grpc.use_local_subchannel_pool", 1),
                ],
            )
            await stack.enter_async_context(channel)
            lines.append((channel.unary_unary(METHOD), session_metadata(home)))
            await channel.channel_ready()
        start = time.perf_counter() + 0.1
        calls = []
        for turn, (key, request) in enumerate(offered):
            due = start + turn / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            load.late_s = max(load.late_s, time.perf_counter() - due)
            stub, metadata = lines[turn % len(lines)]
            calls.append(asyncio.create_task(call(load, stub, metadata, key, request, due)))
        await asyncio.gather(*calls)
        load.seconds = time.perf_counter() - start
    return load


async def call(load: Load, stub: Any, metadata: Any, key: str, request: bytes, due: float) -> None:
    try:
        answer = await stub(request, metadata=metadata, timeout=DEADLINE_S)
    except grpc.aio.AioRpcError as error:
        status = Status()
        for name, value in error.trailing_metadata() or ():
            if name == "grpc-status-details-bin":
                status.ParseFromString(value)
        load.refused[error.code().name] += 1
        load.hinted += any(detail.Is(RetryInfo.DESCRIPTOR) for detail in status.details)
        return
    load.latencies_s.append(time.perf_counter() - due)
    application = enrolment_pb2.EnrolResponse.FromString(answer).application
    load.acknowledged[key] = application.application_id


def look_up(directory: Path, acknowledged: dict[str, str]) -> Counter[str]:
    """States of the acknowledged applications that are in the register, and nothing of others."""
    states: Counter[str] = Counter()
    with open_installation(directory) as installation, installation.database.read() as tx:
        rows = tx.connection.exec_driver_sql("SELECT application_id, state FROM applications")
        known = {row.application_id: ApplicationState(row.state).name for row in rows}
    for application_id in acknowledged.values():
        if application_id in known:
            states[known[application_id]] += 1
    return states


# -- what the server says of itself ----


def scrape(address: str) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
        text = str(answer.read(), "utf-8")
    return {
        sample.name
        + "".join(f"{{{k}={v}}}" for k, v in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def spent(before: dict[str, float], after: dict[str, float]) -> dict[str, Any]:
    """CPU time and the mean of each step, of one enrolment, in milliseconds."""

    def grown(name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    settled = sum(grown(name) for name in after if name.startswith("anju_enrolments_total"))
    steps = {}
    for stage in STAGES:
        count = grown(f"anju_stage_duration_seconds_count{{stage={stage}}}")
        if count:
            total = grown(f"anju_stage_duration_seconds_sum{{stage={stage}}}")
            steps[stage] = total / count * 1e3
    return {
        "server_cpu_ms_per_enrolment": grown("process_cpu_seconds_total") / max(settled, 1) * 1e3,
        "step_ms": steps,
    }


# -- connections without work ----


@contextlib.contextmanager
def holding(address: str, count: int, homes: Path) -> Iterator[None]:
    """So many idle connections, in a process of their own, until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.terminals", "--hold", address, str(count), str(homes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline().strip() != "held":
            raise RuntimeError(f"{count} connections could not be held")
        yield
        if process.poll() is not None:
            raise RuntimeError("the idle connections were lost")
    finally:
        process.stdin.close()
        process.wait(timeout=60)


def hold(address: str, count: int, homes: Path) -> None:
    """Open connections, say so, keep them until standard input ends; one that breaks is fatal."""
    allow_open_files(count)
    contexts = [context_of(home) for home in sorted(homes.glob(TERMINALS))]
    host, _, port = address.rpartition(":")
    with selectors.DefaultSelector() as selector:
        for number in range(count):
            plain = socket.create_connection((host, int(port)), timeout=60)
            tls = contexts[number % len(contexts)].wrap_socket(plain, server_hostname=SERVER_NAME)
            tls.sendall(PREFACE)
            tls.setblocking(False)
            selector.register(tls, selectors.EVENT_READ, bytearray())
            if number % 20 == 0:
                attend(selector, 0.0)
        print("held", flush=True)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while attend(selector, 1.0):
            pass


def context_of(home: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(home / credentials.CA_FILE))
    context.load_cert_chain(home / credentials.CERTIFICATE_FILE, home / credentials.KEY_FILE)
    context.set_alpn_protocols(["h2"])
    return context


def attend(selector: selectors.BaseSelector, timeout_s: float) -> bool:
    """Answer what the server asks of idle connections; False once standard input has ended."""
    for key, _ in selector.select(timeout_s):
        if key.fileobj is sys.stdin:
            return False  # nothing is ever written there, so this is its end
        tls: Any = key.fileobj
        with contextlib.suppress(ssl.SSLWantReadError):
            while True:
                data = tls.recv(16_384)
                if not data:
                    raise RuntimeError("the server closed an idle connection")
                key.data.extend(data)
        for kind, flags, payload in frames(key.data):
            if kind == SETTINGS and not flags & 1:
                tls.sendall(SETTINGS_ACK)
            elif kind == PING and not flags & 1:
                tls.sendall(b"\0\0\x08\x06\x01\0\0\0\0" + payload)
            elif kind == GOAWAY:
                raise RuntimeError("the server sent an idle connection away")
    return True


def frames(buffer: bytearray) -> Iterator[tuple[int, int, bytes]]:
    """Take whole HTTP/2 frames (RFC 9113 section 4.1) off a buffer: (type, flags, payload)."""
    while len(buffer) >= 9:
        end = 9 + int.from_bytes(buffer[:3], "big")
        if len(buffer) < end:
            return
        kind, flags, payload = buffer[3], buffer[4], bytes(buffer[9:end])
        del buffer[:end]
        yield kind, flags, payload


def show(figures: dict[str, Any]) -> None:
    console = wide_console()
    memory = Table(title="memory of the server")
    for column in ("connections", "resident MiB"):
        memory.add_column(column, justify="right")
    for count, mib in figures["resident_mib"].items():
        memory.add_row(str(count), f"{mib:.0f}")
    console.print(memory)
    console.print(f"{figures['kib_per_connection']:.1f} KiB a connection")
    table = Table(
        title=f"enrolments beside them, two fingers, register of {figures['register_people']}"
    )
    columns = (
        "offered/s", "sustained/s", "p50 ms", "p99 ms", "refused", "with hint", "server CPU ms",
        "mean of each step, ms",
    )  # fmt: skip
    for column in columns:
        table.add_column(column, justify="right")
    for row in figures["rates"]:
        table.add_row(
            f"{row['offered_per_s']:.0f}",
            f"{row['sustained_per_s']:.1f}",
            f"{row['p50_ms']:.0f}",
            f"{row['p99_ms']:.0f}",
            ", ".join(f"{count} {name}" for name, count in row["refused"].items()) or "0",
            str(row["refused_with_retry_hint"]),
            f"{row['server_cpu_ms_per_enrolment']:.0f}",
            ", ".join(f"{name} {ms:.0f}" for name, ms in row["step_ms"].items()),
        )
    console.print(table)
    console.print(
        f"{figures['acknowledged']} acknowledged, {figures['lost']} lost, {figures['states']}"
    )


if __name__ == "__main__":
    main()
