"""Each intended change happens once: the ledger of idempotency keys.

The claim is part of the same transaction as the change it names. Either both are on disk or
neither, so a retry after any crash either finds the change done or does it for the first time.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, insert, select

from identity.errors import IdempotencyConflictError, InvalidRequestError
from identity.schema import idempotency
from identity.types import Once
from identity.vault import Vault, seal, unseal

MIN_KEY_CHARS, MAX_KEY_CHARS = 16, 64


def check_key(key: str) -> None:
    """Raises InvalidRequestError (``IDEMPOTENCY_KEY_INVALID``) unless the key is well formed."""
    if (
        not (MIN_KEY_CHARS <= len(key) <= MAX_KEY_CHARS)
        or not key.isascii()
        or not key.isprintable()
    ):
        raise InvalidRequestError(
            "IDEMPOTENCY_KEY_INVALID",
            f"idempotency_key must be {MIN_KEY_CHARS} to {MAX_KEY_CHARS} printable ASCII "
            f"characters, unique for each intended change; got {len(key)} characters",
        )


class OnceLedger:
    def __init__(self, connection: Connection, vault: Vault) -> None:
        self._connection = connection
        self._vault = vault

    def result_of(self, once: Once) -> str | None:
        """The result recorded for this change, or None if it has not happened.

        Raises:
            IdempotencyConflictError: the key was used for another request.
        """
        row = self._connection.execute(
            select(idempotency.c.request_hash, idempotency.c.result).where(
                idempotency.c.caller == once.caller,
                idempotency.c.method == once.method,
                idempotency.c.key == once.key,
            )
        ).one_or_none()
        if row is None:
            return None
        if row.request_hash != self._vault.request_index(once.request_hash):
            raise IdempotencyConflictError
        return unseal(self._vault.kek, row.result, _context(once)).decode()

    def results(self, method: str) -> dict[str, str]:
        """What every key that was used for a method led to, whoever used it."""
        rows = self._connection.execute(
            select(idempotency.c.caller, idempotency.c.key, idempotency.c.result).where(
                idempotency.c.method == method
            )
        )
        return {
            row.key: unseal(
                self._vault.kek, row.result, _context(Once(row.caller, method, row.key, b""))
            ).decode()
            for row in rows
        }

    def record(self, once: Once, result: str, now: datetime) -> None:
        """Note that the change was made, with what identifies its result."""
        self._connection.execute(
            insert(idempotency).values(
                caller=once.caller,
                method=once.method,
                key=once.key,
                request_hash=self._vault.request_index(once.request_hash),
                result=seal(self._vault.kek, result.encode(), _context(once)),
                at=now,
            )
        )


def _context(once: Once) -> str:
    return f"idempotency/{once.caller}/{once.method}/{once.key}"
