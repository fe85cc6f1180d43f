"""``anju terminal simulate``: simulated terminals with progress and a verdict."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from devices.simulator import Progress as SimulationProgress
from devices.simulator import Report, fleet, simulate
from devices.terminal import Connection
from identity.errors import StateError
from identity.example_population import simulated_visits
from identity.ports import SystemClock


def run(
    operator: Connection,
    directory: Path,
    provisioning_address: str,
    station: str,
    terminals: int,
    people: int,
    seed: int,
) -> None:
    """Provision the terminals, let them work, print what came of it.

    Raises:
        StateError: SIMULATION_FAILED: something acknowledged was lost, or counted twice.
    """
    console = Console()
    clients = fleet(directory, operator, station, terminals, provisioning_address)
    visits = list(simulated_visits(people, seed, SystemClock().now()))
    try:
        with work_progress(console) as progress:
            task = progress.add_task("visits", total=len(visits))

            def advance(state: SimulationProgress) -> None:
                progress.update(task, completed=state.done)

            report = simulate(clients, visits, advance, seed=seed)
    finally:
        for client in clients:
            client.close()
    console.print(report_table(report))
    if report.lost or report.doubled or report.unanswered:
        raise StateError(
            "SIMULATION_FAILED",
            f"lost {report.lost}, doubled {report.doubled}, unanswered {report.unanswered}",
        )


def work_progress(console: Console) -> Progress:
    """A progress bar as all of anju's long work shows it."""
    return Progress(
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def report_table(report: Report) -> Table:
    table = Table(title="Simulation", show_header=False)
    refused = ", ".join(f"{reason} {count}" for reason, count in report.refused.items()) or "0"
    rate = report.visits / report.elapsed_s if report.elapsed_s else 0.0
    for name, value in (
        ("visits", f"{report.visits} ({rate:.0f}/s)"),
        ("enrolled", str(report.enrolled)),
        ("recognised", str(report.recognised)),
        ("in adjudication", str(report.in_adjudication)),
        ("waiting for a search", str(report.accepted)),
        ("refused", refused),
        ("unanswered", str(report.unanswered)),
        ("duplicates found / missed", f"{report.duplicates_found} / {report.duplicates_missed}"),
        ("false alarms", str(report.false_alarms)),
        ("wrongly recognised", str(report.wrongly_recognised)),
        ("sent twice / doubled", f"{report.resent} / {report.doubled}"),
        ("lost", str(report.lost)),
        ("latency p50 / p99", f"{report.p50_s * 1e3:.0f} / {report.p99_s * 1e3:.0f} ms"),
    ):
        table.add_row(name, value)
    return table
