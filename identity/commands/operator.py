"""``anju operator``: the staff, what they may do, and how they prove who they are."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from identity.commands.session import Credentials, connected, instant, new_key, pages, show_table
from identity.errors import InvalidRequestError

if TYPE_CHECKING:
    from anju.v1 import operators_pb2

app = typer.Typer(no_args_is_help=True, help="Operators: add, list and revoke.")

OperatorId = Annotated[str, typer.Argument(help="Operator id: 2 to 32 of a-z, 0-9 and '-'.")]


class RoleName(Enum):
    """As typed; devices.types.OperatorRole has the numbers."""

    STATION = "station"
    ADJUDICATOR = "adjudicator"
    ADMINISTRATOR = "administrator"


Roles = Annotated[
    list[RoleName],
    typer.Option("--role", help="What they may do; may be given several times."),
]


@app.command()
def add(
    directory: Annotated[Path, typer.Argument(help="Working directory of the service.")],
    operator: OperatorId,
    roles: Roles,
    days: Annotated[int, typer.Option(min=1, max=365, help="Life of the certificate.")] = 365,
) -> None:
    """Register an operator from a shell on the server, with a key and certificate of their own.

    Prints their directory, DIRECTORY/operators/OPERATOR; its key logs them in at terminals, too.
    """
    from datetime import timedelta

    from devices.types import OperatorRole
    from identity.setup import add_operator

    wanted = [OperatorRole[role.name] for role in roles]
    typer.echo(str(add_operator(directory, operator, wanted, timedelta(days=days))))


@app.command()
def enrol(
    operator: OperatorId,
    roles: Roles,
    credentials: Credentials,
    password: Annotated[
        bool, typer.Option("--password", help="Make a first password, and print it.")
    ] = False,
    key: Annotated[
        Path | None,
        typer.Option(help="Public key (PEM) they log in with: Ed25519, P-256 or P-384."),
    ] = None,
) -> None:
    """Register OPERATOR to work at terminals, or change what they may do (administrators).

    The first password is good for a week and one login, at which they choose their own.
    """
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_pem_public_key,
    )

    from devices.terminal.wire import enrol_operator
    from devices.types import OperatorRole

    login_key = b""
    if key is not None:
        try:
            parsed = load_pem_public_key(key.read_bytes())
        except ValueError as error:
            raise InvalidRequestError("ARGUMENT_INVALID", f"{key} is no public key") from error
        login_key = parsed.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    wanted = [OperatorRole[role.name] for role in roles]
    with connected(credentials) as connection:
        first = enrol_operator(connection, operator, wanted, login_key, password)
    typer.echo(first or f"operator {operator} is registered")


@app.command("list")
def list_operators(credentials: Credentials) -> None:
    """All operators, what they may do and how they log in (administrators)."""
    from anju.v1 import operators_pb2, operators_pb2_grpc

    with connected(credentials) as connection:
        stub = operators_pb2_grpc.OperatorServiceStub(connection.channel)
        rows = [
            (
                one.operator_id,
                " ".join(
                    operators_pb2.OperatorRole.Name(role).removeprefix("OPERATOR_ROLE_").lower()
                    for role in one.roles
                ),
                _logs_in(one),
                f"{instant(one.revoked_at)}: {one.revocation_reason}"
                if one.revocation_reason
                else "-",
            )
            for answer in pages(
                lambda token: connection.call(
                    stub.ListOperators, operators_pb2.ListOperatorsRequest(page_token=token)
                )
            )
            for one in answer.operators
        ]
    show_table(("operator", "roles", "logs in with", "revoked"), rows)


@app.command()
def revoke(
    operator: OperatorId,
    reason: Annotated[str, typer.Option(help="Kept in the register.")],
    credentials: Annotated[
        Path | None,
        typer.Option("--as", envvar="ANJU_CREDENTIALS", help="An administrator's credentials."),
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option(help="Working directory of the service instead, from a shell on the server."),
    ] = None,
) -> None:
    """Refuse OPERATOR from the next call on, also on open connections, and end their sessions."""
    if directory is not None:
        from identity.setup import revoke_operator

        revoke_operator(directory, operator, reason)
    elif credentials is not None:
        from anju.v1 import operators_pb2, operators_pb2_grpc

        with connected(credentials) as connection:
            connection.call(
                operators_pb2_grpc.OperatorServiceStub(connection.channel).RevokeOperator,
                operators_pb2.RevokeOperatorRequest(
                    idempotency_key=new_key(), operator_id=operator, reason=reason
                ),
            )
    else:
        raise InvalidRequestError(
            "ARGUMENT_INVALID", "name an administrator's credentials (--as), or --directory"
        )
    typer.echo(f"operator {operator} is revoked")


def _logs_in(operator: operators_pb2.Operator) -> str:
    ways = ["key"] * operator.has_login_key + ["password"] * operator.has_password
    if operator.HasField("password_change_by"):
        ways[-1] = f"first password, until {instant(operator.password_change_by)}"
    return ", ".join(ways) or "-"
