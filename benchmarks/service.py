"""How many enrolments and identifications a second does the service carry, over mutual TLS?

    python -m benchmarks.service [--register N] [--seconds S] [--clients C] [--json FILE]

A register of N people (two fingers each) is made, the server runs in a process of its own, and C
client threads in this process keep it busy: first with newcomers, then with identifications of
enrolled people. Beside them, in the same run, the emptiest call there is (an unknown permit number:
TLS, authorisation and one indexed read) shows what the transport costs by itself.

Client and server share the machine's cores, as the load of real terminals would not.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

from rich.table import Table

from anju.v1 import common_pb2, matching_pb2, matching_pb2_grpc, permits_pb2, permits_pb2_grpc
from benchmarks.common import environment, spread, wide_console, write_json
from devices.errors import RemoteError
from devices.simulator import fleet
from devices.terminal import connect
from identity.app import open_installation
from identity.enrolment import EnrolCommand
from identity.example_population import Fingers, example_person
from identity.server_process import loopback_toml, serving
from identity.setup import create_installation
from identity.types import (
    CapturedSample,
    Gender,
    Once,
    Particulars,
    PersonalDetails,
    Residence,
)
from matcher.codec import decode

SEED = 11
ARRIVAL = date(2026, 11, 1)
WARM_UP_S = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--register", type=int, default=1_000, help="people enrolled beforehand")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each measurement")
    parser.add_argument("--clients", type=int, default=8, help="client threads")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="anju-service-") as folder:
        figures = measure(
            Path(folder) / "work", arguments.register, arguments.seconds, arguments.clients
        )
    _print(figures)
    if arguments.json:
        write_json(arguments.json, figures)


def measure(directory: Path, register: int, seconds: float, clients: int) -> dict[str, object]:
    """The figures of one run; rates in calls a second, latencies in milliseconds."""
    toml, provisioning_address = loopback_toml()
    create_installation(directory, toml)
    fingers = Fingers(SEED)
    import_s = _fill(directory, register, fingers)
    started = time.perf_counter()
    with serving(directory) as server, contextlib.ExitStack() as stack:
        start_s = time.perf_counter() - started
        operator = stack.enter_context(connect(directory / "operators" / "operator-1"))
        terminals = fleet(
            directory / "terminals",
            operator,
            "bench",
            clients,
            provisioning_address,
        )
        for terminal in terminals:
            stack.callback(terminal.close)
        newcomers = itertools.count(register)
        # Drawing fingers is the client's work: it is done beforehand, not while the clock runs.
        ready = {
            index: (example_person(index, ARRIVAL), fingers.records(index, 0))
            for index in range(register, register + int(seconds * 200) + 1_000)
        }

        def enrol(client: int) -> None:
            person, records = ready[next(newcomers)]
            terminals[client].enrol(person, records, permit_requested=False)

        def enrol_with_permit(client: int) -> None:
            person, records = ready[next(newcomers)]
            terminals[client].enrol(person, records, permit_requested=True)

        matching = matching_pb2_grpc.MatchingServiceStub(operator.channel)
        probes = [_probe(fingers, index) for index in range(min(register, 500))]
        turns = itertools.count()

        def identify(_client: int) -> None:
            expected = next(turns) % len(probes)
            operator.call(matching.Identify, probes[expected])

        permits = permits_pb2_grpc.PermitServiceStub(operator.channel)

        def empty(_client: int) -> None:
            try:
                operator.call(permits.GetPermit, permits_pb2.GetPermitRequest(permit_number="none"))
            except RemoteError as error:
                if error.reason != "PERMIT_UNKNOWN":
                    raise

        runs = {
            "empty_call": _load(empty, clients, seconds),
            "identify": _load(identify, clients, seconds),
            "enrol": _load(enrol, clients, seconds),
            "enrol_with_permit": _load(enrol_with_permit, clients, seconds),
            "identify_one_client": _load(identify, 1, seconds / 2),
            "enrol_one_client": _load(enrol, 1, seconds / 2),
        }
        memory = _resident_mib(server.process.pid)
    base = runs["empty_call"]["per_s"]
    return {
        "register_people": register,
        "clients": clients,
        "import_people_per_s": register / import_s,
        "start_s": start_s,
        "server_resident_mib": memory,
        **runs,
        "ratio_enrol_to_empty": runs["enrol"]["per_s"] / base,
        "ratio_identify_to_empty": runs["identify"]["per_s"] / base,
        "environment": environment(),
    }


def _load(call: Callable[[int], None], clients: int, seconds: float) -> dict[str, float]:
    """Rate and latencies of a call made by several threads at once, after a warm-up."""
    latencies: list[float] = []
    failures: list[BaseException] = []
    lock = threading.Lock()
    begin = time.perf_counter() + WARM_UP_S
    end = begin + seconds

    def work(client: int) -> None:
        mine = []
        try:
            while (started := time.perf_counter()) < end:
                call(client)
                if started >= begin:
                    mine.append(time.perf_counter() - started)
        except BaseException as error:
            failures.append(error)
        with lock:
            latencies.extend(mine)

    threads = [threading.Thread(target=work, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    if not latencies:
        raise RuntimeError("no call finished within the measurement; measure longer")
    ordered = sorted(latencies)
    return {
        "per_s": len(ordered) / seconds,
        "p50_ms": ordered[len(ordered) // 2] * 1e3,
        "p99_ms": ordered[int(0.99 * (len(ordered) - 1))] * 1e3,
        **{f"latency_s_{name}": value for name, value in spread(ordered).items()},
    }


def _fill(directory: Path, people: int, fingers: Fingers) -> float:
    """Enrol people through the workflow, without the network; returns seconds."""
    started = time.perf_counter()
    with open_installation(directory) as installation:
        for index in range(people):
            command = _command(index, fingers)
            once = Once("benchmark", "fill", f"benchmark-{index:012}", b"")
            application = installation.enrolment.accept(command, once, "bench")
            installation.enrolment.settle(application)
        installation.matcher.snapshot()
    return time.perf_counter() - started


def _command(index: int, fingers: Fingers) -> EnrolCommand:
    person = example_person(index, ARRIVAL)
    return EnrolCommand(
        particulars=Particulars(
            PersonalDetails(
                person.full_name,
                Gender(person.gender),
                person.birth_date,
                person.document_number,
                person.household_division_code,
            ),
            Residence(
                person.residence_division_code, person.residence_address, person.arrival_date
            ),
        ),
        samples=tuple(
            CapturedSample(record, decode(record)[0]) for record in fingers.records(index, 0)
        ),
        permit_requested=False,
        captured_at=datetime.now(UTC),
    )


def _probe(fingers: Fingers, index: int) -> matching_pb2.IdentifyRequest:
    return matching_pb2.IdentifyRequest(
        purpose=common_pb2.Purpose(code="counter-service", case_reference="benchmark"),
        samples=[
            common_pb2.Sample(format=common_pb2.SAMPLE_FORMAT_ISO_19794_2_2005, data=record)
            for record in fingers.records(index, 1)
        ],
    )


def _resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def _print(figures: dict[str, object]) -> None:
    table = Table(title=f"service, register of {figures['register_people']} people")
    for column in ("call", "per second", "p50 ms", "p99 ms"):
        table.add_column(column, justify="left" if column == "call" else "right")
    names: Sequence[str] = [key for key, value in figures.items() if _is_run(value)]
    for name in names:
        run = figures[name]
        if isinstance(run, dict):
            table.add_row(
                name, f"{run['per_s']:.0f}", f"{run['p50_ms']:.1f}", f"{run['p99_ms']:.1f}"
            )
    console = wide_console()
    console.print(table)
    for key in ("import_people_per_s", "start_s", "server_resident_mib"):
        console.print(f"{key}: {figures[key]:.1f}")


def _is_run(value: object) -> bool:
    return isinstance(value, dict) and "per_s" in value


if __name__ == "__main__":
    main()
