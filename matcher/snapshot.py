"""The sealed form of an index on disk.

A snapshot is biometric data: it is encrypted with AES-256-GCM under a key of its own, derived by
HKDF-SHA256 from the caller's key and a random salt, in chunks of :data:`CHUNK_BYTES`. Every chunk
authenticates the header, its own number and whether it is the last, so chunks can be neither
exchanged, left out, cut off nor taken from another snapshot.

::

    8 bytes   "ANJUIDX1"
    4 bytes   length of the header, big-endian
    header    JSON: versions, salt, size of the plain content
    chunks    AES-GCM ciphertext and tag of each, nonce = number of the chunk (96 bits, big-endian)

The plain content is JSON (length, text) naming arrays, types and shapes, then the arrays.
"""

from __future__ import annotations

import json
import os
import struct
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
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

MAGIC = b"ANJUIDX1"
CHUNK_BYTES = 4 * 1024 * 1024
MAX_HEADER_BYTES = 64 * 1024
KEY_BYTES = 32
_TAG_BYTES = 16


def write(
    path: Path,
    key: bytes,
    header: Mapping[str, Any],
    meta: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
) -> None:
    """Seal ``meta`` and ``arrays`` into ``path``: beside it first, synced, then renamed.

    Args:
        header: JSON values anybody may read; authenticated, not secret.
        meta: JSON values to seal.
    """
    table = {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()}
    text = json.dumps({"meta": meta, "arrays": table}).encode()
    parts: list[memoryview] = [memoryview(struct.pack(">Q", len(text))), memoryview(text)]
    parts += [np.ascontiguousarray(array).data.cast("B") for array in arrays.values() if array.size]
    salt = os.urandom(32)
    head = json.dumps(
        {
            **header,
            "salt": b64encode(salt).decode(),
            "chunk_bytes": CHUNK_BYTES,
            "content_bytes": sum(part.nbytes for part in parts),
        }
    ).encode()
    cipher, digest = _cipher(key, salt), sha256(head).digest()
    beside = path.with_name(path.name + ".tmp")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(MAGIC + struct.pack(">I", len(head)) + head)
        chunks = _chunks(parts)
        chunk: bytes | None = next(chunks)
        number = 0
        while chunk is not None:
            following = next(chunks, None)
            stream.write(cipher.encrypt(*_sealed(number, following is None, chunk, digest)))
            chunk, number = following, number + 1
        stream.flush()
        os.fsync(stream.fileno())
    beside.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read(path: Path, key: bytes) -> tuple[dict[str, Any], dict[str, Any], dict[str, NDArray[Any]]]:
    """Header, meta and arrays of a snapshot.

    Raises:
        IndexStateError: not a snapshot, not ours, cut off, or changed since it was written.
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        head = _head(stream)
        try:
            header = json.loads(head)
            salt = b64decode(header["salt"], validate=True)
            chunk_bytes, content_bytes = int(header["chunk_bytes"]), int(header["content_bytes"])
        except (ValueError, KeyError, TypeError) as error:
            raise IndexStateError("the snapshot's header is not readable") from error
        if not 0 < chunk_bytes <= 1 << 28 or not 0 < content_bytes <= path.stat().st_size:
            raise IndexStateError("the snapshot is shorter than its header says")
        cipher, digest = _cipher(key, salt), sha256(head).digest()
        content = bytearray()
        for number in range(-(-content_bytes // chunk_bytes)):
            last = (number + 1) * chunk_bytes >= content_bytes
            sealed = stream.read(chunk_bytes + _TAG_BYTES)
            try:
                content += cipher.decrypt(*_sealed(number, last, sealed, digest))
            except (InvalidTag, ValueError) as error:
                raise IndexStateError(
                    f"chunk {number} of the snapshot does not authenticate"
                ) from error
        if len(content) != content_bytes or stream.read(1):
            raise IndexStateError("the snapshot's length is not what its header says")
    return header, *_content(content)


def _head(stream: BinaryIO) -> bytes:
    start = stream.read(len(MAGIC) + 4)
    if len(start) != len(MAGIC) + 4 or not start.startswith(MAGIC):
        raise IndexStateError("the file is not an index snapshot")
    length = struct.unpack(">I", start[len(MAGIC) :])[0]
    if length > MAX_HEADER_BYTES:
        raise IndexStateError("the snapshot's header is not readable")
    return stream.read(length)


def _content(content: bytearray) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Split authenticated content; only a bug or another version can make this fail."""
    try:
        length = struct.unpack_from(">Q", content)[0]
        described = json.loads(bytes(content[8 : 8 + length]))
        offset, arrays = 8 + length, {}
        for name, (kind, shape) in described["arrays"].items():
            count = int(np.prod(shape, dtype=np.int64))
            arrays[name] = np.frombuffer(content, np.dtype(kind), count, offset).reshape(shape)
            offset += arrays[name].nbytes
        return described["meta"], arrays
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise IndexStateError("the snapshot's content is not readable") from error


def _cipher(key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), KEY_BYTES, salt, b"anju index snapshot 1").derive(key))


def _sealed(number: int, last: bool, data: bytes, digest: bytes) -> tuple[bytes, bytes, bytes]:
    """Nonce, data and additional authenticated data of one chunk."""
    return number.to_bytes(12, "big"), data, digest + struct.pack(">Q?", number, last)


def _chunks(parts: list[memoryview]) -> Iterator[bytes]:
    pending = bytearray()
    for part in parts:
        for start in range(0, part.nbytes, CHUNK_BYTES):
            pending += part[start : start + CHUNK_BYTES]
            while len(pending) >= CHUNK_BYTES:
                yield bytes(pending[:CHUNK_BYTES])
                del pending[:CHUNK_BYTES]
    if pending:
        yield bytes(pending)
