"""``anju trust``: what departments verify permits with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from identity.commands.session import Credentials, connected, instant

app = typer.Typer(no_args_is_help=True, help="Trust material: export it for departments.")


@app.callback()
def _group() -> None:
    """Keep `export` a sub-command, for there will be more."""


@app.command()
def export(
    output: Annotated[Path, typer.Argument(help="File to write, e.g. trust.anju.")],
    credentials: Credentials,
) -> None:
    """Write the newest trust bundle as one file, for a stick or a web server."""
    import os

    from anju.v1 import trust_pb2, trust_pb2_grpc

    with connected(credentials) as connection:
        answer = connection.call(
            trust_pb2_grpc.TrustServiceStub(connection.channel).GetTrustBundle,
            trust_pb2.GetTrustBundleRequest(),
        )
    # Beside and then renamed: a stick pulled too early holds the old bundle, not half of one.
    beside = output.with_name(output.name + ".part")
    beside.write_bytes(answer.bundle)
    os.replace(beside, output)
    typer.echo(f"{output}: version {answer.version}, published {instant(answer.published_at)}")
