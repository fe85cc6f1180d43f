"""Pictures on their way in: pieces as they come, sealed under a key that goes with them."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, func, insert, select, update

from identity.schema import upload_pieces, uploads
from identity.vault import Vault, seal, unseal


@dataclass(frozen=True)
class Upload:
    """How far an upload is.

    Attributes:
        size, received: bytes, of the whole and those that are here.
        complete: all are here and the digest was right.
    """

    size: int
    received: int
    complete: bool


class Uploads:
    """Named by who uploads and by the digest of the whole; neither is kept in the clear."""

    def __init__(self, connection: Connection, vault: Vault) -> None:
        self._connection = connection
        self._vault = vault

    def get(self, caller: str, sha256: bytes) -> Upload | None:
        row = self._connection.execute(
            select(uploads.c.size, uploads.c.received, uploads.c.complete).where(
                uploads.c.upload_id == self._id(caller, sha256)
            )
        ).one_or_none()
        return None if row is None else Upload(row.size, row.received, row.complete)

    def begin(self, caller: str, sha256: bytes, size: int, now: datetime) -> None:
        upload_id = self._id(caller, sha256)
        _, wrapped = self._vault.new_data_key(upload_id)
        self._connection.execute(
            insert(uploads).values(
                upload_id=upload_id,
                caller=caller,
                wrapped=wrapped,
                size=size,
                received=0,
                complete=False,
                touched_at=now,
            )
        )

    def append(self, caller: str, sha256: bytes, offset: int, piece: bytes, now: datetime) -> None:
        """Keep the piece at ``offset``, which is where the upload ends so far."""
        upload_id = self._id(caller, sha256)
        sealed = seal(self._key(upload_id), piece, f"upload/{upload_id}/{offset}")
        self._connection.execute(
            insert(upload_pieces).values(upload_id=upload_id, offset=offset, sealed=sealed)
        )
        self._connection.execute(
            update(uploads)
            .where(uploads.c.upload_id == upload_id)
            .values(received=offset + len(piece), touched_at=now)
        )

    def content(self, caller: str, sha256: bytes) -> bytes:
        """What has come so far."""
        upload_id = self._id(caller, sha256)
        rows = self._connection.execute(
            select(upload_pieces.c.offset, upload_pieces.c.sealed)
            .where(upload_pieces.c.upload_id == upload_id)
            .order_by(upload_pieces.c.offset)
        ).all()
        key = self._key(upload_id)
        return b"".join(unseal(key, row.sealed, f"upload/{upload_id}/{row.offset}") for row in rows)

    def complete(self, caller: str, sha256: bytes) -> None:
        self._connection.execute(
            update(uploads)
            .where(uploads.c.upload_id == self._id(caller, sha256))
            .values(complete=True)
        )

    def remove(self, caller: str, sha256: bytes) -> None:
        self._remove([self._id(caller, sha256)])

    def remove_untouched_since(self, before: datetime) -> int:
        """Forget what nobody has gone on with; returns how many."""
        stale = list(
            self._connection.execute(
                select(uploads.c.upload_id).where(uploads.c.touched_at < before)
            ).scalars()
        )
        self._remove(stale)
        return len(stale)

    def claimed_bytes(self, caller: str | None = None) -> int:
        """What uploads will take when they are whole: everybody's, or one caller's."""
        total = select(func.coalesce(func.sum(uploads.c.size), 0))
        if caller is not None:
            total = total.where(uploads.c.caller == caller)
        return int(self._connection.execute(total).scalar_one())

    def _remove(self, upload_ids: list[str]) -> None:
        for table in (upload_pieces, uploads):
            self._connection.execute(delete(table).where(table.c.upload_id.in_(upload_ids)))

    def _key(self, upload_id: str) -> bytes:
        wrapped = self._connection.execute(
            select(uploads.c.wrapped).where(uploads.c.upload_id == upload_id)
        ).scalar_one()
        return self._vault.unwrap(upload_id, wrapped)

    def _id(self, caller: str, sha256: bytes) -> str:
        """Blinded: the digest of a picture that somebody has elsewhere would give it away."""
        named = b"upload/" + caller.encode() + b"/" + sha256
        return hmac.new(self._vault.lookup_key, named, hashlib.sha256).hexdigest()
