"""Keeps the search index in step with the register.

SQL is the truth and the index is derived: each enrolment and erasure is one numbered change in SQL,
and the index applies the changes in order. After a crash it starts from its snapshot, or from
nothing, and replays the rest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import structlog

from identity.errors import SealError
from identity.ports import Comparer
from identity.store import Database, Transaction
from identity.store.people import ReferenceChange
from matcher.errors import DecodeError, FailureToEnrolError
from matcher.formats import decode_stored
from matcher.types import FingerPosition, Template

BATCH = 500

log = structlog.get_logger("anju.references")


class ReferenceFollower:
    """The only writer of the index."""

    def __init__(self, database: Database, comparer: Comparer) -> None:
        self._database = database
        self._comparer = comparer
        self._lock = threading.Lock()

    def catch_up(
        self,
        progress: Callable[[int, int], None] | None = None,
        at_hand: Mapping[str, Sequence[Template]] = MappingProxyType({}),
    ) -> int:
        """Apply every change the index has not seen; returns how many there were.

        Safe to call from any thread and after any failure: a change is applied once, in order.

        Args:
            progress: called with (changes applied, changes in the register).
            at_hand: templates that the caller has just read, by the registrant they now belong to:
                they need not be read again.
        """
        applied = 0
        with self._lock:
            while True:
                with self._database.read() as tx:
                    last = tx.people.last_change() if progress is not None else 0
                    changes = tx.people.changes_after(self._comparer.sequence, BATCH)
                    self._apply(tx, changes, at_hand)
                applied += len(changes)
                if progress is not None and changes:
                    progress(self._comparer.sequence, last)
                if len(changes) < BATCH:
                    return applied

    def _apply(
        self,
        tx: Transaction,
        changes: Sequence[ReferenceChange],
        at_hand: Mapping[str, Sequence[Template]],
    ) -> None:
        """Apply changes in their order; enrolments that follow one another go in at once."""
        additions: list[tuple[str, Sequence[Template], int]] = []
        for change in changes:
            templates: Sequence[Template] = ()
            if change.kind != "withdraw":
                own = at_hand.get(change.registrant_id)
                templates = self._templates(tx, change) if own is None else own
            if templates:
                additions.append((change.registrant_id, templates, change.sequence))
                continue
            self._comparer.add_many(additions)
            additions = []
            self._comparer.withdraw(change.registrant_id, change.sequence)
        self._comparer.add_many(additions)

    def _templates(self, tx: Transaction, change: ReferenceChange) -> Sequence[Template]:
        """The fingers to enrol: none of an erased registrant, whose place here is gone too."""
        try:
            records = tx.people.reference_records(change.registrant_id)
            templates = [template_of(position, record) for position, record in records]
            if templates:
                self._comparer.check(templates)
            return templates
        except (SealError, FailureToEnrolError) as error:
            # One unusable reference must not keep everybody else from being found. Whoever it was
            # is reported here at every start, until their fingers are captured again.
            log.error("reference unusable", registrant_id=change.registrant_id, reason=error.reason)
            return []


def template_of(position: int, record: bytes) -> Template:
    """A stored finger as the index takes it: the record's one view, at the register's position.

    Raises:
        SealError: a stored record no longer decodes (``REFERENCE_DAMAGED``): restore a backup.
    """
    try:
        (view,) = decode_stored(record)
    except (DecodeError, ValueError) as error:
        raise SealError("REFERENCE_DAMAGED", "a stored reference cannot be decoded") from error
    return replace(view, position=FingerPosition(position))
