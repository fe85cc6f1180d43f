"""Pictures that come piece by piece, over lines that break.

What has arrived is durable in steps of :data:`STEP_BYTES`, and whatever is left when a stream
breaks; so a terminal goes on from there, in another stream, to another server process. The digest
names the upload and decides at the end whether it is what the terminal meant to send.

Bounds: bytes of one upload, of one terminal's, of everybody's (what was announced counts, not what
has come), how long a stream may last, and how long an upload nobody goes on with is kept.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from threading import Timer
from typing import Protocol

from identity.config import CaptureConfig
from identity.errors import InvalidRequestError, OverloadError, StateError
from identity.ports import Clock
from identity.store import Database
from identity.store.uploads import Upload

MAX_CHUNK_BYTES = 131_072
STEP_BYTES = 262_144
STREAM_S = 60.0
KEPT = timedelta(days=1)
RETRY_AFTER_S = 60.0
NOTHING = Upload(0, 0, False)


@dataclass(frozen=True)
class Start:
    """What a stream begins with: the digest and size of the whole, and where this one goes on."""

    sha256: bytes
    size: int
    offset: int


class Cancellable(Protocol):
    def cancel(self) -> object: ...


@contextmanager
def time_limit(call: Cancellable, seconds: float = STREAM_S) -> Iterator[None]:
    """Cancel a call that lasts longer: who sends a byte a minute must not hold a thread."""
    timer = Timer(seconds, call.cancel)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class UploadDesk:
    """Takes uploads, and hands them out to whoever sent them. Thread-safe."""

    def __init__(self, database: Database, limits: CaptureConfig, clock: Clock) -> None:
        self._database = database
        self._limits = limits
        self._clock = clock

    def receive(self, owner: str, start: Start, chunks: Iterable[bytes]) -> Upload:
        """Take one stream; returns how far the upload is when it ends.

        Args:
            owner: the terminal.

        Raises:
            InvalidRequestError: UPLOAD_INVALID, UPLOAD_TOO_LARGE; DIGEST_MISMATCH, after which
                nothing of it is left.
            StateError: UPLOAD_OFFSET, the stream does not go on where the upload ends.
            OverloadError: UPLOADS_FULL.
        """
        self._check(start)
        standing = self._begin(owner, start)
        if standing.complete:
            return standing
        end, waiting = start.offset, bytearray()
        try:
            for chunk in chunks:
                if not 1 <= len(chunk) <= MAX_CHUNK_BYTES:
                    raise InvalidRequestError(
                        "UPLOAD_INVALID", f"a chunk has 1 to {MAX_CHUNK_BYTES} bytes"
                    )
                if end + len(waiting) + len(chunk) > start.size:
                    raise InvalidRequestError(
                        "UPLOAD_INVALID", f"more than the {start.size} bytes that were announced"
                    )
                waiting += chunk
                if len(waiting) >= STEP_BYTES:
                    end = self._append(owner, start.sha256, end, bytes(waiting))
                    waiting.clear()
        finally:
            # Also when the line was cut: the next stream begins behind it.
            if waiting:
                end = self._append(owner, start.sha256, end, bytes(waiting))
        if end == start.size:
            self._complete(owner, start.sha256)
        return Upload(start.size, end, end == start.size)

    def standing(self, owner: str, sha256: bytes) -> Upload:
        """How far an upload is; nothing if there is none."""
        _check_digest(sha256)
        with self._database.read() as tx:
            return tx.uploads.get(owner, sha256) or NOTHING

    def content(self, owner: str, sha256: bytes) -> bytes:
        """A whole upload.

        Raises:
            StateError: UPLOAD_MISSING.
        """
        _check_digest(sha256)
        with self._database.read() as tx:
            found = tx.uploads.get(owner, sha256)
            if found is None or not found.complete:
                raise StateError(
                    "UPLOAD_MISSING",
                    f"picture {sha256.hex()[:16]}… is not here; upload it, then send this again",
                )
            return tx.uploads.content(owner, sha256)

    def forget_old(self) -> int:
        """Delete uploads nobody has gone on with for :data:`KEPT`; returns how many."""
        with self._database.write() as tx:
            return tx.uploads.remove_untouched_since(self._clock.now() - KEPT)

    def _check(self, start: Start) -> None:
        _check_digest(start.sha256)
        if start.size > self._limits.max_upload_bytes:
            raise InvalidRequestError(
                "UPLOAD_TOO_LARGE",
                f"{start.size} bytes; at most {self._limits.max_upload_bytes} are taken",
            )
        if start.size < 1 or not 0 <= start.offset <= start.size:
            raise InvalidRequestError("UPLOAD_INVALID", "size and offset contradict each other")

    def _begin(self, owner: str, start: Start) -> Upload:
        with self._database.write() as tx:
            found = tx.uploads.get(owner, start.sha256)
            if found is None:
                self._require_room(
                    tx.uploads.claimed_bytes(owner) + start.size,
                    tx.uploads.claimed_bytes() + start.size,
                )
                tx.uploads.begin(owner, start.sha256, start.size, self._clock.now())
                found = Upload(start.size, 0, False)
            if found.size != start.size:
                raise InvalidRequestError(
                    "UPLOAD_INVALID", f"this upload was announced with {found.size} bytes"
                )
            if not found.complete and found.received != start.offset:
                raise _wrong_offset(found.received)
            return found

    def _require_room(self, own: int, all_together: int) -> None:
        if own > self._limits.upload_bytes_per_terminal or all_together > self._limits.upload_bytes:
            raise OverloadError(
                "UPLOADS_FULL",
                "too many pictures are waiting for their applications; come back later",
                RETRY_AFTER_S,
            )

    def _append(self, owner: str, sha256: bytes, offset: int, piece: bytes) -> int:
        with self._database.write() as tx:
            found = tx.uploads.get(owner, sha256) or NOTHING
            if found.received != offset or found.complete or not found.size:
                raise _wrong_offset(found.received)  # another stream was faster, or it expired
            tx.uploads.append(owner, sha256, offset, piece, self._clock.now())
        return offset + len(piece)

    def _complete(self, owner: str, sha256: bytes) -> None:
        with self._database.write() as tx:
            found = tx.uploads.get(owner, sha256) or NOTHING
            if found.complete:
                return
            right = hmac.compare_digest(
                hashlib.sha256(tx.uploads.content(owner, sha256)).digest(), sha256
            )
            if right:
                tx.uploads.complete(owner, sha256)
            else:
                tx.uploads.remove(owner, sha256)
        if not right:
            raise InvalidRequestError(
                "DIGEST_MISMATCH", "what came is not what was announced; begin anew at offset 0"
            )


def _check_digest(sha256: bytes) -> None:
    if len(sha256) != hashlib.sha256().digest_size:
        raise InvalidRequestError("UPLOAD_INVALID", "sha256 must have 32 bytes")


def _wrong_offset(received: int) -> StateError:
    return StateError(
        "UPLOAD_OFFSET", f"this upload has {received} bytes; go on from there (GetUpload)"
    )
