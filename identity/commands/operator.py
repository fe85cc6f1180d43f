"""``anju operator``: credentials of the staff, from a shell on the server's machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Operators: make and revoke credentials.")


@app.command()
def add(
    directory: Annotated[Path, typer.Argument(help="Working directory of the service.")],
    operator: Annotated[str, typer.Argument(help="Operator id: 2 to 32 of a-z, 0-9 and '-'.")],
    days: Annotated[int, typer.Option(min=1, max=365, help="Life of the certificate.")] = 365,
) -> None:
    """Make one more operator's key and certificate in DIRECTORY/operators."""
    from datetime import timedelta

    from identity.setup import add_operator

    typer.echo(str(add_operator(directory, operator, timedelta(days=days))))


@app.command()
def revoke(
    directory: Annotated[Path, typer.Argument(help="Working directory of the service.")],
    operator: Annotated[str, typer.Argument(help="Operator id.")],
    reason: Annotated[str, typer.Option(help="Kept in the register.")],
) -> None:
    """Refuse OPERATOR's certificate from the next call on, also on open connections."""
    from identity.setup import revoke_operator

    serial = revoke_operator(directory, operator, reason)
    typer.echo(f"operator {operator} is revoked (certificate {serial})")
