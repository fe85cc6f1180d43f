"""``anju permit``: show, draw, issue, suspend and revoke permits (operators)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from identity.commands.session import Credentials, connected, instant, new_key
from identity.errors import InvalidRequestError
from issuance.print_command import print_permits

if TYPE_CHECKING:
    from anju.v1 import permits_pb2

app = typer.Typer(no_args_is_help=True, help="Permits: show, card, issue, suspend, revoke.")

app.command("print")(print_permits)

Number = Annotated[str, typer.Argument(metavar="PERMIT", help="Permit number.")]
Reason = Annotated[str, typer.Option(help="Stays in the register; never published.")]


@app.command()
def show(permit: Number, credentials: Credentials) -> None:
    """Print a permit's state, holder and dates."""
    from anju.v1 import permits_pb2, permits_pb2_grpc

    with connected(credentials) as connection:
        answer = connection.call(
            permits_pb2_grpc.PermitServiceStub(connection.channel).GetPermit,
            permits_pb2.GetPermitRequest(permit_number=permit),
        )
    _print(answer.permit)


@app.command()
def card(
    permit: Number,
    output: Annotated[Path, typer.Argument(help="A .png or .pdf file to write.")],
    credentials: Credentials,
) -> None:
    """Draw the permit card; its symbol is read back and verified before it is written."""
    from anju.v1 import permits_pb2, permits_pb2_grpc

    formats = {".png": permits_pb2.CARD_FORMAT_PNG, ".pdf": permits_pb2.CARD_FORMAT_PDF}
    wanted = formats.get(output.suffix.lower())
    if wanted is None:
        raise InvalidRequestError("FORMAT_UNKNOWN", "the card must be a .png or .pdf file")
    with connected(credentials) as connection:
        answer = connection.call(
            permits_pb2_grpc.PermitServiceStub(connection.channel).RenderPermitCard,
            permits_pb2.RenderPermitCardRequest(permit_number=permit, format=wanted),
        )
    output.write_bytes(answer.card)
    typer.echo(str(output))


@app.command()
def issue(
    registrant: Annotated[str, typer.Argument(help="Registrant id.")], credentials: Credentials
) -> None:
    """Issue a permit to a registrant whose last one has expired or was revoked."""
    from anju.v1 import permits_pb2, permits_pb2_grpc

    with connected(credentials) as connection:
        answer = connection.call(
            permits_pb2_grpc.PermitServiceStub(connection.channel).IssuePermit,
            permits_pb2.IssuePermitRequest(idempotency_key=new_key(), registrant_id=registrant),
        )
    _print(answer.permit)


@app.command()
def revoke(permit: Number, reason: Reason, credentials: Credentials) -> None:
    """Revoke a permit for good; the published status follows at once."""
    _change(permit, "PERMIT_STATE_REVOKED", reason, credentials)


@app.command()
def suspend(permit: Number, reason: Reason, credentials: Credentials) -> None:
    """Suspend a permit until it is reinstated."""
    _change(permit, "PERMIT_STATE_SUSPENDED", reason, credentials)


@app.command()
def reinstate(permit: Number, reason: Reason, credentials: Credentials) -> None:
    """End a suspension."""
    _change(permit, "PERMIT_STATE_VALID", reason, credentials)


def _change(permit: str, state: str, reason: str, credentials: Path) -> None:
    from anju.v1 import permits_pb2, permits_pb2_grpc

    with connected(credentials) as connection:
        answer = connection.call(
            permits_pb2_grpc.PermitServiceStub(connection.channel).ChangePermitStatus,
            permits_pb2.ChangePermitStatusRequest(
                idempotency_key=new_key(),
                permit_number=permit,
                state=permits_pb2.PermitState.Value(state),
                reason=reason,
            ),
        )
    _print(answer.permit)


def _print(permit: permits_pb2.Permit) -> None:
    from anju.v1 import permits_pb2

    state = permits_pb2.PermitState.Name(permit.state).removeprefix("PERMIT_STATE_")
    typer.echo(f"permit      {permit.permit_number}")
    typer.echo(f"state       {state}")
    typer.echo(f"registrant  {permit.registrant_id}")
    typer.echo(f"issued      {instant(permit.issued_at)}")
    typer.echo(f"expires     {instant(permit.expires_at)}")
