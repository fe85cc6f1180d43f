"""``anju audit``: the log of every lookup and change (operators)."""

from __future__ import annotations

from typing import Annotated

import typer

from identity.commands.session import Credentials, connected, instant, show_table
from identity.errors import StateError

app = typer.Typer(no_args_is_help=True, help="The audit log: list and verify.")


@app.command("list")
def list_entries(
    credentials: Credentials,
    after: Annotated[int, typer.Option(help="Sequence number to start behind.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
) -> None:
    """Entries in order. People appear by opaque ids only."""
    from anju.v1 import audit_pb2, audit_pb2_grpc

    with connected(credentials) as connection:
        answer = connection.call(
            audit_pb2_grpc.AuditServiceStub(connection.channel).ListEntries,
            audit_pb2.ListEntriesRequest(after_sequence=after, page_size=limit),
        )
    show_table(
        ("#", "at", "who", "action", "subject", "purpose", "outcome"),
        [
            (
                str(one.sequence),
                instant(one.at),
                one.who,
                one.action,
                one.subject_id,
                one.purpose,
                one.outcome,
            )
            for one in answer.entries
        ],
    )


@app.command()
def verify(credentials: Credentials) -> None:
    """Recompute the hash chain; fails where an entry was changed, removed or reordered."""
    from anju.v1 import audit_pb2, audit_pb2_grpc

    with connected(credentials) as connection:
        answer = connection.call(
            audit_pb2_grpc.AuditServiceStub(connection.channel).VerifyChain,
            audit_pb2.VerifyChainRequest(),
            deadline_s=300.0,
        )
    if not answer.intact:
        raise StateError("AUDIT_BROKEN", f"the log was tampered with at entry {answer.broken_at}")
    typer.echo(f"{answer.entries} entries, chain intact, head {answer.head.hex()}")
