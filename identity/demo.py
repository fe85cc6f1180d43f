"""``anju demo``: the main job end to end, on real parts, with the server in a process of its own.

The year is walked in two steps: the installation is made and a few people are registered on a clock
that runs a year slow, then the server starts again on today's clock. Their permits have expired by
then, and the search index comes back from the database.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from devices.credentials import load_key
from devices.simulator import Progress as SimulationProgress
from devices.simulator import Report, Visit, simulate
from devices.terminal import (
    Application,
    ApplicationState,
    Connection,
    TerminalClient,
    connect,
    log_in,
)
from devices.terminal.client import provision
from devices.terminal.wire import create_token, new_idempotency_key
from identity.app import OPERATORS
from identity.errors import StateError
from identity.example_population import Fingers, example_person, real_fingers
from identity.particulars import SHANGHAI
from identity.ports import SystemClock
from identity.server_process import loopback_toml, serving
from identity.setup import FIRST_OPERATORS, create_installation

A_YEAR_AGO = timedelta(days=380)
EARLY_PEOPLE = 12  # registered a year ago
RETURNERS = 8  # of them come back, with an expired permit
DOUBLES = 10  # come a second time under another name
STATIONS = (("east-gate", "east-gate-1"), ("west-gate", "west-gate-1"))
SEED = 20_260_101

# What the verifier's process must do without; run as `python -c PRELUDE <arguments>`.
PRELUDE = """
import sys
for name in ("grpc", "faiss", "sqlalchemy", "numba", "numpy"):
    sys.modules[name] = None
import socket
def refuse(*args, **kwargs):
    raise OSError("this process has no network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from issuance.cli import app
app()
"""


@dataclass
class Tally:
    """What the demonstration has seen so far."""

    searches: int = 0
    permits: int = 0
    found: int = 0
    false_alarms: int = 0
    latencies_s: list[float] = field(default_factory=list)
    verdicts: list[tuple[str, str]] = field(default_factory=list)

    def add(self, report: Report) -> None:
        self.searches += report.visits
        self.latencies_s += report.latencies_s


def run(directory: Path, people: int, data: Path | None) -> None:
    """The whole story. Raises StateError (``DEMO_FAILED``) where it does not come out right."""
    console, started = Console(), time.perf_counter()
    tally = Tally()
    fingers = real_fingers(data, SEED) if data is not None else Fingers(SEED)
    now = SystemClock().now()
    toml, provisioning_address = loopback_toml()
    console.rule("安居 anju: registration, duplicate search, permit, offline verification")
    console.print(
        f"people's fingers: {len(fingers.real)} real pairs read in place, the rest synthetic"
    )

    slow = f"{toml}\n[development]\nclock_offset_days = -{A_YEAR_AGO.days}\n"
    made = create_installation(directory, slow)
    console.print(f"[bold]1[/] anju init {directory}: root of trust {made.root_fingerprint[:16]}…")
    cards = directory / "cards"
    cards.mkdir()

    with (
        _server(directory, console, "2", "a server on last year's clock, mutual TLS"),
        _operator(directory, 1) as operator,
    ):
        for station, terminal in STATIONS:
            token = create_token(operator, station, terminal)
            home = directory / "terminals" / terminal
            provision(provisioning_address, token, home, operator.address)
            log_in(home, FIRST_OPERATORS[0], login_key=load_key(_operator_home(directory, 1)))
            console.print(
                f"[bold]3[/] terminal {terminal} at {station}: certificate issued, "
                f"{FIRST_OPERATORS[0]} logged in"
            )
        with _terminals(directory) as terminals:
            early = [
                _visit(fingers, index, 0, index, now - A_YEAR_AGO) for index in range(EARLY_PEOPLE)
            ]
            _register(console, "4", "registered a year ago", terminals, early, tally)
            returner = _first(terminals[0], early, tally, ApplicationState.RECOGNISED)
            _card(operator, returner, cards / "expired.png")

    (directory / "anju.toml").write_text(toml, encoding="utf-8")
    with _server(directory, console, "5", "the server again, today: the index is caught up"):
        with _operator(directory, 1) as operator, _terminals(directory) as terminals:
            _today(console, directory, cards, fingers, people, now, operator, terminals, tally)
        _verify_offline(console, directory, cards, made.root, tally)
    _summary(console, directory, cards, people, tally, time.perf_counter() - started)


def _today(
    console: Console,
    directory: Path,
    cards: Path,
    fingers: Fingers,
    people: int,
    now: datetime,
    operator: Connection,
    terminals: Sequence[TerminalClient],
    tally: Tally,
) -> None:
    rng = random.Random(SEED)
    newcomers = [_visit(fingers, i, 0, i, now) for i in range(EARLY_PEOPLE, people)]
    rng.shuffle(newcomers)
    report = _register(console, "6", "registered today", terminals, newcomers, tally)

    returning = [_visit(fingers, index, 1, index, now) for index in range(RETURNERS)]
    doubles = [
        _visit(fingers, index, 1, people + index, now)
        for index in range(EARLY_PEOPLE, EARLY_PEOPLE + DOUBLES)
    ]
    again = _register(console, "7", "come a second time", terminals, returning + doubles, tally)
    # Each of these visits is a second one, whose first was in an earlier run.
    tally.found = again.recognised + again.in_adjudication
    tally.false_alarms = report.false_alarms
    for one in (report, again):
        _expect(
            not (one.lost or one.doubled or one.unanswered or one.wrongly_recognised),
            f"lost {one.lost}, doubled {one.doubled}, unanswered {one.unanswered}, "
            f"wrongly recognised {one.wrongly_recognised}",
        )

    back = _first(terminals[1], returning, tally, ApplicationState.RECOGNISED)
    console.print(f"[bold]8[/] back after a year at the other station: {back.registrant_id}")
    console.print("  recognised by the fingers; the old permit had expired, a new one is issued")

    double = _first(terminals[0], doubles, tally, ApplicationState.IN_ADJUDICATION)
    _expect(double.permit is None, "no permit for a double registration")
    console.print(f"[bold]9[/] the same fingers under another name: case {double.case_id}")
    _decide_same(directory, double.case_id)
    console.print("  no permit yet; two operators looked at both records and agreed: same person")

    half = len(newcomers) // 2
    valid = _first(terminals[0], newcomers[:half], tally, ApplicationState.RECOGNISED)
    lost = _first(terminals[0], newcomers[half:], tally, ApplicationState.RECOGNISED)
    tally.permits = _count_permits(operator)
    _card(operator, valid, cards / "valid.png")
    _card(operator, valid, cards / "valid.pdf")
    _card(operator, lost, cards / "revoked.png")
    _revoke(operator, lost)
    (cards / "forged.png").write_bytes(_forged(valid))
    console.print(f"[bold]10[/] permit cards drawn, one revoked, one forged: {cards}")
    _export(operator, directory / "trust.anju")


def _visit(
    fingers: Fingers, index: int, impression: int, particulars: int, arrived: datetime
) -> Visit:
    day = arrived.astimezone(SHANGHAI).date() - timedelta(days=1)
    return Visit(
        example_person(particulars, day), fingers.records(index, impression), truth_id=str(index)
    )


def _register(
    console: Console,
    step: str,
    what: str,
    terminals: Sequence[TerminalClient],
    visits: Sequence[Visit],
    tally: Tally,
) -> Report:
    with _progress(console) as progress:
        task = progress.add_task(f"[bold]{step}[/] {what}", total=len(visits))

        def advance(state: SimulationProgress) -> None:
            progress.update(task, completed=state.done)

        report = simulate(terminals, visits, advance, seed=SEED)
    tally.add(report)
    return report


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def _first(
    terminal: TerminalClient, visits: Sequence[Visit], tally: Tally, state: ApplicationState
) -> Application:
    """The first of some visits that comes out as wanted, with a permit where one is due."""
    for visit in visits:
        tally.searches += 1
        started = time.perf_counter()
        answer = terminal.enrol(visit.person, visit.records)
        tally.latencies_s.append(time.perf_counter() - started)
        if answer.state is state and (answer.permit is not None or answer.case_id):
            return answer
    raise StateError("DEMO_FAILED", f"none of {len(visits)} visits came out as {state.name}")


def _decide_same(directory: Path, case_id: str) -> None:
    from anju.v1 import adjudication_pb2, adjudication_pb2_grpc

    for number in (1, 2):
        with _operator(directory, number) as operator:
            stub = adjudication_pb2_grpc.AdjudicationServiceStub(operator.channel)
            operator.call(stub.GetCase, adjudication_pb2.GetCaseRequest(case_id=case_id))
            answer = operator.call(
                stub.DecideCase,
                adjudication_pb2.DecideCaseRequest(
                    idempotency_key=new_idempotency_key(),
                    case_id=case_id,
                    verdict=adjudication_pb2.VERDICT_SAME_PERSON,
                    reason="both records seen; same person under two documents",
                ),
            )
    _expect(
        answer.case.state == adjudication_pb2.CASE_STATE_DECIDED, "two operators decide the case"
    )


def _count_permits(operator: Connection) -> int:
    """Permits issued, as the audit log has them."""
    from anju.v1 import audit_pb2, audit_pb2_grpc

    stub = audit_pb2_grpc.AuditServiceStub(operator.channel)
    issued, after = 0, 0
    while True:
        answer = operator.call(
            stub.ListEntries, audit_pb2.ListEntriesRequest(after_sequence=after, page_size=1_000)
        )
        issued += sum(entry.action == "permit issued" for entry in answer.entries)
        if not answer.entries:
            return issued
        after = answer.entries[-1].sequence


def _card(operator: Connection, application: Application, path: Path) -> None:
    from anju.v1 import permits_pb2, permits_pb2_grpc

    if application.permit is None:
        raise StateError("DEMO_FAILED", f"there is no permit to draw for {path.name}")
    stub = permits_pb2_grpc.PermitServiceStub(operator.channel)
    pdf = path.suffix == ".pdf"
    answer = operator.call(
        stub.RenderPermitCard,
        permits_pb2.RenderPermitCardRequest(
            permit_number=application.permit.permit_number,
            format=permits_pb2.CARD_FORMAT_PDF if pdf else permits_pb2.CARD_FORMAT_PNG,
        ),
    )
    path.write_bytes(answer.card)


def _revoke(operator: Connection, application: Application) -> None:
    from anju.v1 import permits_pb2, permits_pb2_grpc

    if application.permit is None:
        raise StateError("DEMO_FAILED", "there is no permit to revoke")
    operator.call(
        permits_pb2_grpc.PermitServiceStub(operator.channel).ChangePermitStatus,
        permits_pb2.ChangePermitStatusRequest(
            idempotency_key=new_idempotency_key(),
            permit_number=application.permit.permit_number,
            state=permits_pb2.PERMIT_STATE_REVOKED,
            reason="card reported lost (demonstration)",
        ),
    )


def _export(operator: Connection, path: Path) -> None:
    from anju.v1 import trust_pb2, trust_pb2_grpc

    answer = operator.call(
        trust_pb2_grpc.TrustServiceStub(operator.channel).GetTrustBundle,
        trust_pb2.GetTrustBundleRequest(),
    )
    path.write_bytes(answer.bundle)


def _forged(application: Application) -> bytes:
    """A picture of a real permit with another name written into it, signature and all."""
    import io

    import cbor2

    from issuance import envelope, qr

    if application.permit is None:
        raise StateError("DEMO_FAILED", "there is no permit to forge")
    signed = cbor2.loads(envelope.from_text(application.permit.qr_text))
    protected, unprotected, payload, signature = signed.value
    altered = payload.replace("示例".encode(), "冒用".encode())
    if altered == payload:
        raise StateError("DEMO_FAILED", "the forgery changed nothing")
    forged = cbor2.dumps(cbor2.CBORTag(signed.tag, [protected, unprotected, altered, signature]))
    picture = io.BytesIO()
    qr.picture(qr.symbol(envelope.to_text(forged)), 6).save(picture, "PNG")
    return picture.getvalue()


def _verify_offline(
    console: Console, directory: Path, cards: Path, root: Path, tally: Tally
) -> None:
    """A department checks each picture in a process without network or service libraries."""
    python = os.environ.get("ANJU_VERIFIER_PYTHON", sys.executable)
    isolated = _network_cut()
    console.print(
        f"[bold]11[/] verified by {'a separate installation' if python != sys.executable else 'a'}"
        f" process without grpc, faiss and SQLAlchemy, "
        f"{'in an empty network namespace' if isolated else 'with its sockets refused'}"
    )
    for name, wanted in (
        ("valid.png", "VALID"),
        ("forged.png", "BAD_SIGNATURE"),
        ("expired.png", "EXPIRED"),
        ("revoked.png", "REVOKED"),
    ):
        done = subprocess.run(  # noqa: S603 - our own interpreter and files
            [
                *isolated,
                python,
                "-c",
                PRELUDE,
                "verify",
                str(cards / name),
                "--trust",
                str(directory / "trust.anju"),
                "--root",
                str(root),
                "--json",
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={"PATH": os.environ.get("PATH", ""), "PYTHONUTF8": "1", "HOME": str(directory)},
        )
        if done.returncode not in (0, 1):
            raise StateError("DEMO_FAILED", f"the verifier failed on {name}: {done.stderr.strip()}")
        verdict = json.loads(done.stdout)
        found = verdict["reason"] or verdict["status"]
        _expect(found.upper() == wanted, f"{name} is {found}, expected {wanted}")
        tally.verdicts.append((name, found.upper()))
        console.print(f"  {name:<12} {found.upper()}")


def _network_cut() -> list[str]:
    """A command prefix for a process without any network, or nothing where this is not allowed."""
    tool = shutil.which("unshare")
    if tool is None:
        return []
    for prefix in ([tool, "-n"], [tool, "-rn"]):
        tried = subprocess.run([*prefix, "true"], capture_output=True, check=False)  # noqa: S603
        if tried.returncode == 0:
            return prefix
    return []


@contextlib.contextmanager
def _server(directory: Path, console: Console, step: str, what: str) -> Iterator[None]:
    started = time.perf_counter()
    with serving(directory) as server:
        console.print(
            f"[bold]{step}[/] {what}: {server.serving['references']} references, "
            f"{server.serving['replayed']} replayed, {time.perf_counter() - started:.1f} s"
        )
        yield


@contextlib.contextmanager
def _operator(directory: Path, number: int) -> Iterator[Connection]:
    with connect(_operator_home(directory, number)) as connection:
        yield connection


def _operator_home(directory: Path, number: int) -> Path:
    return directory / OPERATORS / FIRST_OPERATORS[number - 1]


@contextlib.contextmanager
def _terminals(directory: Path) -> Iterator[list[TerminalClient]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(TerminalClient(directory / "terminals" / terminal))
            for _, terminal in STATIONS
        ]


def _expect(holds: bool, finding: str) -> None:
    if not holds:
        raise StateError("DEMO_FAILED", f"the demonstration did not come out right: {finding}")


def _summary(
    console: Console,
    directory: Path,
    cards: Path,
    people: int,
    tally: Tally,
    elapsed_s: float,
) -> None:
    latencies = sorted(tally.latencies_s)
    p50, p99 = (latencies[int(q * (len(latencies) - 1))] * 1e3 for q in (0.50, 0.99))
    table = Table(title=f"anju demo, {elapsed_s:.0f} s", show_header=False)
    for name, value in (
        ("people", f"{people}"),
        ("searches (1:N)", f"{tally.searches}"),
        ("duplicates found", f"{tally.found} of {DOUBLES + RETURNERS} second visits"),
        ("false alarms", f"{tally.false_alarms}, for people to decide"),
        ("enrolment p50 / p99", f"{p50:.0f} / {p99:.0f} ms, permit included"),
        ("permits issued", f"{tally.permits}"),
        (
            "verifications",
            ", ".join(f"{name.split('.')[0]}: {verdict}" for name, verdict in tally.verdicts),
        ),
        ("cards", f"{cards}"),
        ("trust bundle", f"{directory / 'trust.anju'}"),
        ("server log", f"{directory / 'server.log'}"),
    ):
        table.add_row(name, value)
    console.print(table)
