"""``anju terminal check``: do server, proxy and terminal behave?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from devices.terminal.conformance import Finding

COLOURS = {"passed": typer.colors.GREEN, "failed": typer.colors.RED, "skipped": typer.colors.YELLOW}


def check(
    address: Annotated[str, typer.Argument(help="host:port of the main port.")],
    provisioning: Annotated[
        str | None, typer.Option(help="host:port of the provisioning port, to look at it too.")
    ] = None,
    credentials: Annotated[
        Path | None,
        typer.Option(
            "--as", help="A terminal's credentials; without them only TLS can be looked at."
        ),
    ] = None,
    fingerprint: Annotated[
        str, typer.Option(help="The server's, 20 symbols, as seen from another network.")
    ] = "",
    idle: Annotated[
        float, typer.Option(min=0, max=86_400, help="Seconds to leave a connection idle.")
    ] = 10.0,
    deadline: Annotated[
        float, typer.Option(min=1, max=600, help="Seconds for each connection and call.")
    ] = 10.0,
    template: Annotated[
        list[Path] | None, typer.Option(help="A finger minutiae record to read; repeatable.")
    ] = None,
    record_format: Annotated[
        str | None,
        typer.Option("--format", help="Of the templates, e.g. iso-19794-2-2005; else found out."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a finding, a line each.")
    ] = False,
) -> None:
    """Tell whether server, proxy and terminal behave, and what to do about what does not.

    For vendors and for a station's network engineer. Nobody is enrolled and nothing stays in the
    register. Exit code 0 if nothing failed, 1 if something did.
    """
    from devices.terminal.conformance import Outcome, Target
    from devices.terminal.conformance import check as check_connection

    target = Target(address, provisioning, credentials, _symbols(fingerprint))
    counts = dict.fromkeys(Outcome, 0)
    found = [_templates(template or [], record_format)]
    found.insert(0, check_connection(target, idle, deadline))
    for findings in found:
        for one in findings:
            counts[one.outcome] += 1
            _show(one, as_json)
    if not as_json:
        told = ", ".join(f"{count} {outcome.value}" for outcome, count in counts.items())
        typer.echo(told, err=True)
    if counts[Outcome.FAILED]:
        raise typer.Exit(1)


def _templates(paths: list[Path], record_format: str | None) -> Iterator[Finding]:
    if not paths:
        return
    from devices.terminal.types import SampleFormat
    from identity.record_check import examine
    from matcher.formats import RecordFormat

    stated = None
    if record_format is not None:
        by_label = {one.label: RecordFormat(one) for one in SampleFormat if one}
        stated = by_label.get(record_format)
        if stated is None:
            raise typer.BadParameter(f"--format is one of {', '.join(by_label)}")
    for path in paths:
        yield from examine(path.name, path.read_bytes(), stated)


def _symbols(fingerprint: str) -> str:
    """As typed: grouped, in any case."""
    from devices.token import FINGERPRINT_SYMBOLS

    symbols = fingerprint.upper().replace("-", "").replace(" ", "")
    if symbols and len(symbols) != FINGERPRINT_SYMBOLS:
        raise typer.BadParameter(f"--fingerprint has {FINGERPRINT_SYMBOLS} symbols")
    return symbols


def _show(one: Finding, as_json: bool) -> None:
    if as_json:
        told = {"check": one.check, "outcome": one.outcome.value, "found": one.found}
        typer.echo(json.dumps({**told, "advice": one.advice}, ensure_ascii=False))
        return
    outcome = typer.style(f"{one.outcome.value:7}", fg=COLOURS[one.outcome.value])
    typer.echo(f"{outcome}  {one.check:18}  {one.found}")
    if one.advice:
        typer.echo(f"{'':29}{one.advice}")
