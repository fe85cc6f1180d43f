"""`anju trust page` and `python -m issuance page`: the web page, ready for a counter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from issuance import page
from issuance.bundle import MAX_BUNDLE_BYTES
from issuance.errors import TrustError


def page_command(
    target: Annotated[
        Path,
        typer.Argument(help="FILE.html for a stick, or a directory for a web server."),
    ],
    trust: Annotated[
        Path | None, typer.Option(help="Trust bundle to go with it, e.g. trust.anju.")
    ] = None,
) -> None:
    """Write the verifier as a web page: one file with its trust inside, or a folder to serve.

    Exit code 2: it could not be written.
    """
    try:
        written = page.write_page(target, _read(trust) if trust else None)
    except (OSError, TrustError) as error:
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        typer.echo(f"anju: {text}", err=True)
        raise typer.Exit(2) from None
    for path in written:
        typer.echo(f"{path}: {path.stat().st_size:,} bytes")


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BUNDLE_BYTES + 1)
