"""The sealed form of an index on disk.

A snapshot is biometric data: it is encrypted with AES-256-GCM under a key of its own, derived by
HKDF-SHA256 from the caller's key and a random salt, in chunks of :data:`CHUNK_BYTES`. Every chunk
authenticates the header, its own number and whether it is the last, so chunks can be neither
exchanged, left out, cut off nor taken from another snapshot.

::

    8 bytes   "ANJUIDX2"
    4 bytes   length of the header, big-endian
    header    JSON: versions, salt, size of a chunk
    chunks    AES-GCM ciphertext and tag of each, nonce = number of the chunk (96 bits, big-endian)

The plain content is a sequence of arrays, each behind its name, type and shape as JSON (length,
text). Both sides go through it once, so neither holds a second copy.
"""

from __future__ import annotations

import json
import os
import struct
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from matcher.errors import IndexStateError

MAGIC = b"ANJUIDX2"
CHUNK_BYTES = 4 * 1024 * 1024
MAX_HEADER_BYTES = 64 * 1024
KEY_BYTES = 32
_TAG_BYTES = 16


class Writer:
    """Takes arrays one after the other; see :func:`writing`.

    Arrays may have any type and shape that NumPy's own file format knows by name; the reader gets
    both back.
    """

    def __init__(self, stream: BinaryIO, cipher: AESGCM, digest: bytes) -> None:
        self._stream, self._cipher, self._digest = stream, cipher, digest
        self._pending = bytearray()
        self._number = 0

    def array(self, name: str, array: NDArray[Any]) -> None:
        text = json.dumps([name, array.dtype.str, list(array.shape)]).encode()
        self._take(struct.pack(">I", len(text)) + text)
        if array.size:
            self._take(np.ascontiguousarray(array).data.cast("B"))

    def _take(self, data: bytes | memoryview) -> None:
        for start in range(0, len(data), CHUNK_BYTES):
            self._pending += data[start : start + CHUNK_BYTES]
            # One chunk more than full stays: the last is sealed as such.
            while len(self._pending) > CHUNK_BYTES:
                self._seal(bytes(self._pending[:CHUNK_BYTES]), last=False)
                del self._pending[:CHUNK_BYTES]

    def _seal(self, chunk: bytes, *, last: bool) -> None:
        sealed = self._cipher.encrypt(*_sealed(self._number, last, chunk, self._digest))
        self._stream.write(sealed)
        self._number += 1

    def close(self) -> None:
        self._seal(bytes(self._pending), last=True)


@contextmanager
def writing(path: Path, key: bytes, header: Mapping[str, Any]) -> Iterator[Writer]:
    """Seal arrays into ``path``: beside it first, synced, then renamed.

    Args:
        header: JSON values anybody may read; authenticated, not secret.

    Raises:
        OSError: the disk refused. What was there before stays; what was begun is removed, so that
            a full disk is not fuller for it.
    """
    salt = os.urandom(32)
    head = json.dumps(
        {**header, "salt": b64encode(salt).decode(), "chunk_bytes": CHUNK_BYTES}
    ).encode()
    beside = path.with_name(path.name + ".tmp")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(MAGIC + struct.pack(">I", len(head)) + head)
            writer = Writer(stream, _cipher(key, salt), sha256(head).digest())
            yield writer
            writer.close()
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    beside.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class Reader:
    """Gives arrays back in the order they were written; see :func:`reading`."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._chunk = memoryview(b"")

    def array(self, name: str) -> NDArray[Any]:
        """The next array, which must be the one of this name.

        Raises:
            IndexStateError: it is another, or the snapshot is broken here.
        """
        try:
            (length,) = struct.unpack(">I", self._bytes(4))
            found, kind, shape = json.loads(self._bytes(length))
            array: NDArray[Any] = np.empty(shape, np.dtype(kind))
        except (ValueError, TypeError, struct.error) as error:
            raise IndexStateError("the snapshot's content is not readable") from error
        if found != name:
            raise IndexStateError(f"the snapshot has {found!r} where {name!r} is expected")
        if array.size:
            self._fill(array.data.cast("B"))
        return array

    def end(self) -> None:
        """Raise :class:`IndexStateError` unless everything has been read."""
        if len(self._chunk) or next(self._chunks, b""):
            raise IndexStateError("the snapshot is longer than its content")

    def _bytes(self, count: int) -> bytes:
        if count > MAX_HEADER_BYTES:
            raise IndexStateError("the snapshot's content is not readable")
        data = bytearray(count)
        self._fill(memoryview(data))
        return bytes(data)

    def _fill(self, target: memoryview) -> None:
        filled = 0
        while filled < len(target):
            if not len(self._chunk):
                chunk = next(self._chunks, b"")
                if not chunk:
                    raise IndexStateError("the snapshot is shorter than its content")
                self._chunk = memoryview(chunk)
            part = self._chunk[: len(target) - filled]
            target[filled : filled + len(part)] = part
            self._chunk = self._chunk[len(part) :]
            filled += len(part)


@contextmanager
def reading(path: Path, key: bytes) -> Iterator[tuple[dict[str, Any], Reader]]:
    """Header and arrays of a snapshot.

    Raises:
        IndexStateError: not a snapshot, not ours, cut off, or changed since it was written.
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        head = _head(stream)
        try:
            header = json.loads(head)
            salt = b64decode(header["salt"], validate=True)
            chunk_bytes = int(header["chunk_bytes"])
        except (ValueError, KeyError, TypeError) as error:
            raise IndexStateError("the snapshot's header is not readable") from error
        if not 0 < chunk_bytes <= 1 << 28:
            raise IndexStateError("the snapshot's header is not readable")
        cipher, digest = _cipher(key, salt), sha256(head).digest()
        yield header, Reader(_opened(stream, cipher, digest, chunk_bytes + _TAG_BYTES))


def _opened(stream: BinaryIO, cipher: AESGCM, digest: bytes, size: int) -> Iterator[bytes]:
    """The content of all chunks; the last must say that it is."""
    sealed, number = stream.read(size), 0
    while True:
        following = stream.read(size)
        try:
            yield cipher.decrypt(*_sealed(number, not following, sealed, digest))
        except (InvalidTag, ValueError) as error:
            raise IndexStateError(
                f"chunk {number} of the snapshot does not authenticate"
            ) from error
        if not following:
            return
        sealed, number = following, number + 1


def _head(stream: BinaryIO) -> bytes:
    start = stream.read(len(MAGIC) + 4)
    if len(start) != len(MAGIC) + 4 or not start.startswith(MAGIC):
        raise IndexStateError("the file is not an index snapshot")
    length = struct.unpack(">I", start[len(MAGIC) :])[0]
    if length > MAX_HEADER_BYTES:
        raise IndexStateError("the snapshot's header is not readable")
    return stream.read(length)


def _cipher(key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), KEY_BYTES, salt, b"anju index snapshot 2").derive(key))


def _sealed(number: int, last: bool, data: bytes, digest: bytes) -> tuple[bytes, bytes, bytes]:
    """Nonce, data and additional authenticated data of one chunk."""
    return number.to_bytes(12, "big"), data, digest + struct.pack(">Q?", number, last)
