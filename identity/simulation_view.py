"""How a simulated day looks: a live picture in a terminal, plain lines elsewhere, the verdict."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table

from devices.simulator import State, Verdict
from devices.simulator.day import hour_of_day
from devices.simulator.faults import Fault
from devices.simulator.verdict import POOR_CAPTURE
from devices.terminal import ApplicationState

LINE_EVERY_S = 5.0
FULL_TABLE = 24  # stations; of more, the ones with most waiting are shown
COLUMNS = 2


@contextlib.contextmanager
def shown(console: Console) -> Iterator[Callable[[State], None]]:
    """What to call with each state."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    with Live(console=console, auto_refresh=False) as live:
        yield lambda state: live.update(_picture(state), refresh=True)


class _Lines:
    """A line now and then, for a log."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = 0.0

    def __call__(self, state: State) -> None:
        now = time.monotonic()
        if now < self._next and not state.over:
            return
        self._next = now + LINE_EVERY_S
        text = "; ".join(f"{name} {value}" for name, value in _figures(state))
        self._console.print(f"{hour_of_day(state.day_s)} {text}", soft_wrap=True)


def _figures(state: State) -> list[tuple[str, str]]:
    found = state.findings()
    states = state.states
    rate = state.acknowledged / state.elapsed_s if state.elapsed_s else 0.0
    return [
        ("arrived", f"{state.arrived} of {state.arrivals}"),
        ("acknowledged", f"{state.acknowledged} ({rate:.1f}/s)"),
        ("enrolled", str(states[ApplicationState.ENROLLED])),
        ("recognised", str(states[ApplicationState.RECOGNISED])),
        ("with people", str(states[ApplicationState.IN_ADJUDICATION])),
        ("queued", str(state.waiting)),
        (
            "second visits found / missed",
            f"{found.duplicates_found} / {found.duplicates_missed}",
        ),
        ("false alarms", str(found.false_alarms)),
        (
            "to acknowledge p50 / p99",
            f"{_quantile(state.took_s, 0.5)} / {_quantile(state.took_s, 0.99)}",
        ),
        ("wrong now", _wrong_now(state.faults)),
    ]


def _picture(state: State) -> Panel:
    figures = Table.grid(padding=(0, 2))
    for name, value in _figures(state):
        figures.add_row(f"[dim]{name}", f"[bold]{value}")
    shown_stations = sorted(state.stations, key=lambda one: (one.up, -one.waiting))[:FULL_TABLE]
    stations = Table(box=None, padding=(0, 1))
    for _ in range(COLUMNS):
        for name in ("station", "queued", "sent", "refused", ""):
            stations.add_column(name, justify="left" if name == "station" else "right")
    shown_stations.sort(key=lambda one: one.name)
    cells = [
        (
            one.name,
            str(one.waiting),
            str(one.sent),
            str(one.refused),
            "[red]down" if not one.up else "[yellow]!" if one.problem else "[green]·",
        )
        for one in shown_stations
    ]
    half = -(-len(cells) // COLUMNS)
    for row in range(half):
        stations.add_row(*(cell for part in cells[row::half] for cell in part))
    return Panel(
        Group(figures, stations),
        title=f"anju: a day at {len(state.stations)} stations, {hour_of_day(state.day_s)}",
        subtitle=f"{state.elapsed_s:.0f} s",
    )


def verdict_table(verdict: Verdict, state: State, problems: Sequence[str]) -> Table:
    """The end of it, as the register has it."""
    found = verdict.findings
    refused = ", ".join(
        f"{reason} {count}" + (" (captured again)" if reason == POOR_CAPTURE else "")
        for reason, count in sorted(verdict.refused.items())
    )
    past = ", ".join(f"{kind.value} {count}" for kind, count in state.past_faults.items())
    per_s = verdict.acknowledged / state.elapsed_s if state.elapsed_s else 0.0
    table = Table(
        title="[red]FAILED: " + "; ".join(problems) if problems else "[green]PASSED",
        caption="counted in the register itself",
        show_header=False,
    )
    for name, value in (
        ("submissions", f"{verdict.submissions} in {state.elapsed_s:.0f} s"),
        ("acknowledged", f"{verdict.acknowledged} ({per_s:.1f}/s)"),
        ("lost", str(len(verdict.lost))),
        ("doubled", str(len(verdict.doubled))),
        ("undelivered", str(verdict.undelivered)),
        ("refused", refused or "0"),
        ("enrolled", str(verdict.enrolled)),
        ("recognised", str(verdict.recognised)),
        ("in adjudication", str(verdict.in_adjudication)),
        ("waiting for a search", str(verdict.waiting)),
        ("second visits", str(verdict.second_visits)),
        ("  found / missed", f"{found.duplicates_found} / {found.duplicates_missed}"),
        ("false alarms", str(found.false_alarms)),
        ("wrongly recognised", str(found.wrongly_recognised)),
        (
            "time to acknowledge",
            f"p50 {_quantile(verdict.took_s, 0.5)}, p99 {_quantile(verdict.took_s, 0.99)}, "
            f"longest {_quantile(verdict.took_s, 1.0)}",
        ),
        ("went wrong", past or "nothing"),
    ):
        table.add_row(name, value)
    return table


def _quantile(took_s: Sequence[float], quantile: float) -> str:
    if not took_s:
        return "-"
    at = sorted(took_s)[min(len(took_s) - 1, int(quantile * len(took_s)))]
    return f"{at * 1e3:.0f} ms" if at < 1 else f"{at:.1f} s"


def _wrong_now(faults: Sequence[Fault]) -> str:
    kinds = Counter(one.kind for one in faults)
    return (
        ", ".join(kind.value + (f" x{count}" if count > 1 else "") for kind, count in kinds.items())
        or "nothing"
    )
