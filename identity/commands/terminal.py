"""``anju terminal``: provisioning, enrolling and simulating capture terminals."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from identity.commands.capture import TerminalDirectory, enrol, extract, inspect, submit
from identity.commands.check import check
from identity.commands.session import Credentials, connected, instant, new_key, pages, show_table
from identity.commands.simulate import simulate

app = typer.Typer(no_args_is_help=True, help="Capture terminals: provision, run, enrol, simulate.")
for command in (check, simulate, enrol, submit, extract, inspect):
    app.command()(command)


@app.command("token")
def new_token(station: str, terminal: str, credentials: Credentials) -> None:
    """Register TERMINAL at STATION and print its one-time provisioning token (administrators).

    A terminal that is registered keeps its certificate until the token is used.
    """
    from anju.v1 import terminals_pb2, terminals_pb2_grpc

    with connected(credentials) as connection:
        answer = connection.call(
            terminals_pb2_grpc.TerminalServiceStub(connection.channel).CreateProvisioningToken,
            terminals_pb2.CreateProvisioningTokenRequest(
                idempotency_key=new_key(), station_id=station, terminal_id=terminal
            ),
        )
    typer.echo(answer.token)
    typer.echo(f"valid until {instant(answer.expires_at)} (Asia/Shanghai), for one use", err=True)


@app.command()
def provision(
    address: Annotated[str, typer.Argument(help="host:port of the provisioning port.")],
    directory: Annotated[Path, typer.Argument(help="Where this terminal keeps its credentials.")],
    token: Annotated[
        str,
        typer.Option(
            prompt="Provisioning token",
            help="Asked for if left out, which keeps it out of the shell's history.",
        ),
    ],
    main_address: Annotated[
        str | None, typer.Option(help="host:port of the main port; one port lower by default.")
    ] = None,
) -> None:
    """Exchange a one-time token for this terminal's certificate; its key never leaves it.

    In the directory of a terminal that has a certificate already, the new one takes its place.
    """
    from devices.terminal import provision as provision_terminal

    done = provision_terminal(address, token, directory, main_address)
    typer.echo(f"terminal {done.terminal_id} at station {done.station_id}: {directory}")


@app.command()
def login(
    directory: TerminalDirectory,
    operator: Annotated[str, typer.Argument(help="Operator id.")],
    key: Annotated[
        Path | None,
        typer.Option(help="The operator's key instead of a password: key.pem, or its directory."),
    ] = None,
) -> None:
    """Log OPERATOR in at this terminal; whoever was logged in is logged out.

    What is captured from now on is in the operator's name, also while there is no network.
    """
    from devices.credentials import load_private_key
    from devices.errors import RemoteError
    from devices.terminal import log_in
    from identity.particulars import SHANGHAI

    if key is not None:
        session = log_in(directory, operator, login_key=load_private_key(key))
    else:
        password = typer.prompt("Password", hide_input=True)
        try:
            session = log_in(directory, operator, password=password)
        except RemoteError as error:
            if error.reason != "PASSWORD_CHANGE_REQUIRED":
                raise
            typer.echo("This is a first password; choose one of your own.", err=True)
            fresh = typer.prompt("New password", hide_input=True, confirmation_prompt=True)
            session = log_in(directory, operator, password=password, new_password=fresh)
    until = session.expires_at.astimezone(SHANGHAI).strftime("%Y-%m-%d %H:%M")
    typer.echo(f"{operator} is logged in until {until} (Asia/Shanghai)")


@app.command()
def logout(directory: TerminalDirectory) -> None:
    """End the session at this terminal. What is queued is still sent."""
    from devices.terminal import log_out

    if log_out(directory):
        typer.echo("logged out")
    else:
        typer.echo("logged out here; the register, which is not reached, ends the session itself")


@app.command("run")
def run_terminal(
    directory: TerminalDirectory,
    spool: Annotated[
        Path | None, typer.Option(help="A folder that capture software drops submissions into.")
    ] = None,
) -> None:
    """Take what capture software drops, keep it, and send it whenever the register is there.

    Images become templates here, and doubtful captures are told of while the person is there.

    Renews the certificate before it expires. Runs until SIGTERM or Ctrl-C; may be killed at any
    time without losing anything. DIRECTORY/terminal.toml sets how many days without contact, how
    much waiting and how many fingers of each person are expected.
    """
    from identity.terminal_work import run

    run(directory, spool)


@app.command("queue")
def show_queue(
    directory: TerminalDirectory,
    retry: Annotated[
        str | None,
        typer.Option(
            help="Send the entry with this key once more; whoever is logged in answers for it."
        ),
    ] = None,
    discard: Annotated[
        str | None, typer.Option(help="Forget the entry with this key, which needs attention.")
    ] = None,
) -> None:
    """What waits on this terminal, what was sent, and what needs attention."""
    from devices.terminal import EntryState, Outbox
    from identity.terminal_work import ATTENTION_HELP, entry_rows

    with Outbox(directory) as outbox:
        if retry is not None:
            outbox.retry(retry)
        if discard is not None:
            outbox.queue.discard(discard)
        show_table(
            ("key", "label", "since", "state", "outcome or reason"),
            entry_rows(outbox.entries()),
        )
        if any(one.state is EntryState.ATTENTION for one in outbox.entries()):
            typer.echo(ATTENTION_HELP, err=True)
        for notice in outbox.notices():
            typer.echo(f"note: {notice}", err=True)


@app.command()
def reprovision(terminal: str, reason: str, credentials: Credentials) -> None:
    """TERMINAL was lost or broke: refuse its certificate at once, print a token for its successor.

    Its sessions end too. For administrators.
    """
    from anju.v1 import terminals_pb2, terminals_pb2_grpc

    with connected(credentials) as connection:
        answer = connection.call(
            terminals_pb2_grpc.TerminalServiceStub(connection.channel).ReprovisionTerminal,
            terminals_pb2.ReprovisionTerminalRequest(
                idempotency_key=new_key(), terminal_id=terminal, reason=reason
            ),
        )
    typer.echo(answer.token)
    typer.echo(
        f"terminal {terminal} is refused from now on; the token is valid until "
        f"{instant(answer.expires_at)} (Asia/Shanghai), for one use",
        err=True,
    )


@app.command("list")
def list_terminals(
    credentials: Credentials,
    expiry_days: Annotated[
        int, typer.Option(min=0, help="Warn of certificates that expire within so many days.")
    ] = 14,
    silent_days: Annotated[
        int, typer.Option(min=1, help="Warn of active terminals silent for so many days.")
    ] = 3,
) -> None:
    """The inventory: state, last contact, certificate, software, sensor (administrators).

    A terminal renews its certificate 30 days before it expires: one that expires soon needs help.
    """
    from anju.v1 import terminals_pb2, terminals_pb2_grpc
    from identity.commands.inventory import COLUMNS, inventory_row, warnings

    with connected(credentials) as connection:
        stub = terminals_pb2_grpc.TerminalServiceStub(connection.channel)
        found = [
            one
            for answer in pages(
                lambda token: connection.call(
                    stub.ListTerminals,
                    terminals_pb2.ListTerminalsRequest(page_token=token),
                )
            )
            for one in answer.terminals
        ]
    show_table(COLUMNS, [inventory_row(one) for one in found])
    limits = timedelta(days=expiry_days), timedelta(days=silent_days)
    for warning in warnings(found, datetime.now(UTC), *limits):
        typer.echo(f"warning: {warning}", err=True)


@app.command()
def revoke(terminal: str, reason: str, credentials: Credentials) -> None:
    """Refuse TERMINAL from its next call on, and end its sessions (administrators)."""
    from anju.v1 import terminals_pb2, terminals_pb2_grpc

    with connected(credentials) as connection:
        connection.call(
            terminals_pb2_grpc.TerminalServiceStub(connection.channel).RevokeTerminal,
            terminals_pb2.RevokeTerminalRequest(
                idempotency_key=new_key(), terminal_id=terminal, reason=reason
            ),
        )
    typer.echo(f"terminal {terminal} is revoked")
