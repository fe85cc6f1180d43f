"""``anju trust``: what departments verify permits with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from identity.commands.session import Credentials, connected, instant
from issuance.cli import trust_import, trust_info
from issuance.page_command import page_command

app = typer.Typer(no_args_is_help=True, help="Trust material: publish, export, import.")
app.command("import")(trust_import)
app.command("info")(trust_info)
app.command("page")(page_command)


@app.command()
def publish(
    directory: Annotated[Path, typer.Argument(help="Working directory of the service.")],
) -> None:
    """Publish the trust material anew, beside a running server or without one."""
    from identity.commands.key import Office

    Office(directory).publish()


@app.command()
def export(
    output: Annotated[Path, typer.Argument(help="File to write, e.g. trust.anju.")],
    credentials: Credentials,
    since: Annotated[
        Path | None, typer.Option(help="The bundle a department has: write a delta if one fits.")
    ] = None,
) -> None:
    """Write the newest trust bundle as one file, for a stick or a web server."""
    import os

    from anju.v1 import trust_pb2, trust_pb2_grpc
    from issuance import delta

    request = trust_pb2.GetTrustBundleRequest()
    if since is not None:
        request.known_version = delta.version_of(since.read_bytes())
        request.delta_accepted = True
    with connected(credentials) as connection:
        answer = connection.call(
            trust_pb2_grpc.TrustServiceStub(connection.channel).GetTrustBundle, request
        )
    if not answer.bundle and not answer.delta:
        typer.echo(f"version {answer.version} is the newest; nothing was written")
        return
    # Beside and then renamed: a stick pulled too early holds the old bundle, not half of one.
    beside = output.with_name(output.name + ".part")
    beside.write_bytes(answer.delta or answer.bundle)
    os.replace(beside, output)
    what = "delta to version" if answer.delta else "version"
    typer.echo(f"{output}: {what} {answer.version}, published {instant(answer.published_at)}")
