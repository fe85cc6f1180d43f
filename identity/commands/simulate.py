"""``anju terminal simulate``: a day with load, faults and a verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from identity.errors import InvalidRequestError, StateError

PROFILE_HELP = "none, some or hard; the switches below replace single numbers of it."
MEAN = "mean number for each station"


def simulate(
    directory: Annotated[
        Path | None,
        typer.Argument(help="A new directory for everything made; a temporary one if left out."),
    ] = None,
    stations: Annotated[int, typer.Option(min=1, max=1000)] = 4,
    people: Annotated[int, typer.Option(min=1, help="Different people; some come twice.")] = 200,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.05, help="How long the day (8:30 to 17:30) takes. Default: 2."),
    ] = None,
    speed: Annotated[
        float | None, typer.Option(min=1.0, help="The same as how often faster than a real day.")
    ] = None,
    faults: Annotated[str, typer.Option(help=PROFILE_HELP)] = "some",
    seed: Annotated[int, typer.Option(min=0, help="The same seed is the same day.")] = 1,
    cuts: Annotated[float | None, typer.Option(help=f"Network cuts, {MEAN}.")] = None,
    silences: Annotated[float | None, typer.Option(help=f"Dead lines, {MEAN}.")] = None,
    slow: Annotated[float | None, typer.Option(help=f"Slow links, {MEAN}.")] = None,
    terminal_kills: Annotated[
        float | None, typer.Option(help=f"Terminals killed and started again, {MEAN}.")
    ] = None,
    full_disks: Annotated[float | None, typer.Option(help=f"Full disks, {MEAN}.")] = None,
    server_kills: Annotated[int | None, typer.Option(help="SIGKILL of the server.")] = None,
    server_stops: Annotated[int | None, typer.Option(help="SIGTERM of the server.")] = None,
    clock_skew: Annotated[
        float | None, typer.Option(help="Terminals' clocks are wrong by up to so many minutes.")
    ] = None,
    returning: Annotated[float, typer.Option(help="Share of people who come again.")] = 0.10,
    double: Annotated[
        float, typer.Option(help="Share who come again as somebody else, at another station.")
    ] = 0.03,
    permits: Annotated[bool, typer.Option(help="Applicants ask for a permit.")] = True,
    max_missed: Annotated[
        float, typer.Option(min=0, max=1, help="Share of second visits that may go unnoticed.")
    ] = 0.05,
    patience: Annotated[
        float, typer.Option(min=1, help="Seconds without progress after closing to give up after.")
    ] = 120.0,
    server: Annotated[
        str | None,
        typer.Option(help="host:port of a register that runs already; it is not restarted."),
    ] = None,
    provisioning: Annotated[
        str | None, typer.Option(help="host:port of its provisioning port.")
    ] = None,
    credentials: Annotated[
        Path | None, typer.Option("--as", help="An operator's credentials there.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the result to this file.")
    ] = None,
) -> None:
    """Play a day at simulated stations against a register, and check what came of it.

    Terminals are real ones, with their queues on disk; a register is made and started for the run
    unless --server names one. In the end the register itself is checked. Fails if anything
    acknowledged is lost, anybody is enrolled twice, or not everything arrived.
    """
    from rich.console import Console

    from devices.simulator import Mix
    from devices.simulator.faults import PROFILES
    from identity.simulation import Options, RunningServer, run

    if faults not in PROFILES:
        raise _invalid(f"--faults must be one of {', '.join(PROFILES)}")
    if minutes is not None and speed is not None:
        raise _invalid("give --minutes or --speed, not both")
    running = None
    if server is not None:
        if provisioning is None or credentials is None:
            raise _invalid("--server needs --provisioning and --as as well")
        running = RunningServer(server, provisioning, credentials)
        server_kills, server_stops = server_kills or 0, server_stops or 0
    try:
        rates = PROFILES[faults].but(
            cuts=cuts,
            silences=silences,
            slow=slow,
            terminal_kills=terminal_kills,
            full_disks=full_disks,
            server_kills=server_kills,
            server_stops=server_stops,
            clock_skew_s=None if clock_skew is None else clock_skew * 60.0,
        )
        mix = Mix(returning=returning, double=double if stations > 1 else 0.0)
    except ValueError as error:
        raise _invalid(str(error)) from error
    options = Options(
        stations=stations,
        people=people,
        minutes=minutes or (540.0 / speed if speed else 2.0),
        rates=rates,
        seed=seed,
        mix=mix,
        permits=permits,
        patience_s=patience,
        max_missed=max_missed,
    )
    outcome = run(options, directory, running, Console())
    if json_file is not None:
        json_file.write_text(
            json.dumps(outcome.result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
        )
    if outcome.problems:
        raise StateError("SIMULATION_FAILED", "; ".join(outcome.problems))


def _invalid(problem: str) -> InvalidRequestError:
    return InvalidRequestError("OPTIONS_INVALID", problem)
