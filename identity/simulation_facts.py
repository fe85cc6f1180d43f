"""What a register holds of simulated stations: read on its disk, or asked for through its services.

On the disk everything can be seen: applications, idempotency keys, registrants with their fingers,
cases. A register that runs somewhere else is asked by each terminal for what it was promised, and
by an operator for what its audit log says was accepted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sqlalchemy import select

from anju.v1 import audit_pb2, audit_pb2_grpc
from devices.errors import RemoteError
from devices.simulator import Facts, Submission
from devices.simulator.verdict import Held
from devices.terminal import ApplicationState, Connection, TerminalClient
from identity.app import KEYS
from identity.config import database_url, load_config
from identity.schema import applications, cases, reference_samples, registrants
from identity.store import Database, Transaction
from identity.vault import open_vault

ACCEPTED = "EnrolmentService.Enrol"  # the audit log's and the ledger's name for it
AUDIT_PAGE = 1_000


def facts_in_store(directory: Path, stations: Sequence[str]) -> Facts:
    """Everything about these stations in the database of a working directory.

    Raises:
        ConfigError: it is none, or its keys or schema do not fit.
    """
    database = Database(
        database_url(load_config(directory), directory), open_vault(directory / KEYS)
    )
    try:
        database.require_current_schema()
        with database.read() as tx:
            return _stored(tx, stations)
    finally:
        database.close()


def _stored(tx: Transaction, stations: Sequence[str]) -> Facts:
    execute = tx.connection.execute
    rows = execute(
        select(
            applications.c.application_id,
            applications.c.state,
            applications.c.registrant_id,
            applications.c.case_id,
        ).where(applications.c.station_id.in_(stations))
    )
    with_fingers = select(reference_samples.c.registrant_id).distinct()
    return Facts(
        applications={
            row.application_id: Held(
                ApplicationState(row.state), row.registrant_id or "", row.case_id or ""
            )
            for row in rows
        },
        by_key=tx.once.results(ACCEPTED),
        registrants=frozenset(
            execute(
                select(registrants.c.registrant_id).where(
                    registrants.c.registrant_id.in_(with_fingers)
                )
            ).scalars()
        ),
        newcomers=frozenset(
            execute(
                select(registrants.c.registrant_id).where(registrants.c.station_id.in_(stations))
            ).scalars()
        ),
        cases=frozenset(execute(select(cases.c.case_id)).scalars()),
    )


def facts_of_service(
    operator: Connection,
    homes: Mapping[str, Path],
    submissions: Sequence[Submission],
    after_sequence: int,
) -> Facts:
    """What a running register says.

    Args:
        homes: credentials of each terminal, by its id.
        after_sequence: where the audit log ended before the run.
    """
    promised: dict[str, list[str]] = {}
    for one in submissions:
        if one.application_id:
            promised.setdefault(one.terminal_id, []).append(one.application_id)
    held: dict[str, Held] = {}
    for terminal_id, ids in promised.items():
        with TerminalClient(homes[terminal_id]) as client:
            held.update(_known(client, ids))
    receipts = {one for ids in promised.values() for one in ids}
    callers = {f"terminal:{terminal_id}" for terminal_id in homes}
    for entry in _entries(operator, after_sequence):
        if (
            entry.action == ACCEPTED
            and not callers.isdisjoint(entry.who.split())
            and entry.subject_id not in receipts
        ):
            # Accepted, and no terminal has a receipt for it: it is there once too often.
            held[entry.subject_id] = Held(ApplicationState.UNSPECIFIED)
    return Facts(held)


def audit_end(operator: Connection) -> int:
    """The sequence number of the last entry in the audit log; 0 when it is empty."""
    last = 0
    for entry in _entries(operator, 0):
        last = entry.sequence
    return last


def _known(client: TerminalClient, ids: Sequence[str]) -> Iterator[tuple[str, Held]]:
    for application_id in ids:
        try:
            answer = client.application(application_id)
        except RemoteError as error:
            if error.status != "NOT_FOUND":
                raise
            continue
        yield application_id, Held(answer.state, answer.registrant_id, answer.case_id)


def _entries(operator: Connection, after_sequence: int) -> Iterator[audit_pb2.AuditEntry]:
    stub = audit_pb2_grpc.AuditServiceStub(operator.channel)
    while True:
        answer = operator.call(
            stub.ListEntries,
            audit_pb2.ListEntriesRequest(after_sequence=after_sequence, page_size=AUDIT_PAGE),
        )
        yield from answer.entries
        if not answer.entries:
            return
        after_sequence = answer.entries[-1].sequence
