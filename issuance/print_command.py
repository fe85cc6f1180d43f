"""`print`: cards or certificates from the texts of symbols, by the profile of a trust bundle.

For a print shop or a bulk re-issue: thousands of permits into one PDF. Every permit is verified
before it is printed, because paper that departments would refuse helps nobody.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from issuance.card import CardFormat, Paper, draw_batch, draw_card
from issuance.checking import Checker, Outcome
from issuance.device import Device
from issuance.errors import SourceError
from issuance.memory import replace_file
from issuance.sources import open_source

_FORMATS: Final = {".png": CardFormat.PNG, ".svg": CardFormat.SVG, ".pdf": CardFormat.PDF}


def print_permits(
    source: Annotated[Path, typer.Argument(help="symbols to print anew; as `verify` takes them")],
    output: Annotated[Path, typer.Argument(help=".pdf for any number, .png or .svg for one")],
    trust: Annotated[Path, typer.Option(help="trust bundle, e.g. bundle.anju")],
    paper: Annotated[Paper, typer.Option(help="ID-1 card or A4 certificate")] = Paper.CARD,
    column: Annotated[
        str | None, typer.Option(help="column of a CSV with the symbol's text")
    ] = None,
    portrait: Annotated[
        Path | None, typer.Option(help="that the photograph was made of, to print it better (one)")
    ] = None,
) -> None:
    """Print permits that stand. Exit code 1: some were left out, and are named."""
    wanted = _FORMATS.get(output.suffix.lower())
    if wanted is None:
        raise SourceError("the output is a .pdf, .png or .svg file")
    store = Device(trust).load()
    checker = Checker(store, datetime.now(UTC))
    texts: list[tuple[str, str]] = []
    left_out = 0
    for _, entry in open_source(source, column).entries():
        found = checker.check(entry)
        for one in found:
            if one.outcome is not Outcome.VALID:
                left_out += 1
                typer.echo(f"{one.where}: {one.reason}", err=True)
        # A scan may show other symbols beside the permit's, or several permits.
        standing = [text for text in entry.texts if checker.verdicts([text])[0].valid]
        texts += [(found[0].where, text) for text in standing]
    if not texts:
        raise SourceError("there is no permit among them that stands")
    if wanted is CardFormat.PDF and portrait is None:
        made = draw_batch(
            (text for _, text in texts), store.rules, replace_unprintable=True, paper=paper
        )
        for position, error in made.problems:
            typer.echo(f"{texts[position][0]}: {error}", err=True)
        drawn, left_out, data = made.drawn, left_out + len(made.problems), made.pdf
    else:
        if len(texts) > 1:
            raise SourceError(f"{len(texts)} permits need a .pdf; a picture or portrait is for one")
        data = draw_card(
            texts[0][1],
            store.rules,
            format=wanted,
            replace_unprintable=True,
            paper=paper,
            portrait=portrait.read_bytes() if portrait else None,
        )
        drawn = 1
    if drawn:
        replace_file(output, data)
    typer.echo(f"{output}: {drawn} printed, {left_out} left out")
    if left_out:
        raise typer.Exit(1)
