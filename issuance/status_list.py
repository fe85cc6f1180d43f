"""Token Status List (IETF draft-ietf-oauth-status-list): does a permit still stand?

A list is an array of small numbers, one a permit, packed into bytes and compressed with zlib; we
use 2 bits, so that "suspended" is told apart from "revoked". It is published as a CWT, signed by a
key of its own. Decompression is bounded by what a list can hold.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from issuance import cbor, signing, sparse_zlib
from issuance.errors import DecodeError
from issuance.signing import PublicKey, Signer
from issuance.types import PermitStatus, Reason, Stage

TYP: Final = "application/statuslist+cwt"
SUB, EXP, IAT, TTL, STATUS_LIST = 2, 4, 6, 65534, 65533
BITS: Final = 2
# 2**20 entries of 2 bits are 256 KiB, and 16 KiB compressed with one in a hundred revoked. A
# smaller list would tell more about when a permit was issued, a larger one costs every change more.
ENTRIES: Final = 1 << 20
# No list we read may unpack to more than this; 8 bits for each of 2**22 entries.
MAX_LIST_BYTES: Final = 1 << 22


@dataclass(frozen=True, slots=True)
class StatusList:
    """Statuses by index.

    Attributes:
        bits: 1, 2, 4 or 8 per entry.
        data: entries packed from the least significant bit of each byte upwards.
    """

    bits: int
    data: bytes

    def __len__(self) -> int:
        return len(self.data) * 8 // self.bits

    def __getitem__(self, index: int) -> int:
        """The status at `index`, from 0. Raises IndexError beyond the end."""
        if not 0 <= index < len(self):
            raise IndexError(f"status index {index} of {len(self)}")
        bit = index * self.bits
        return self.data[bit >> 3] >> (bit & 7) & ((1 << self.bits) - 1)


def make(statuses: Iterable[tuple[int, PermitStatus]], entries: int = ENTRIES) -> StatusList:
    """A 2-bit list of `entries`, VALID but for the given (index, status)."""
    data = bytearray(entries * BITS // 8)
    for index, status in statuses:
        bit = index * BITS
        data[bit >> 3] = data[bit >> 3] & ~(3 << (bit & 7)) | status << (bit & 7)
    return StatusList(BITS, bytes(data))


def to_value(statuses: StatusList) -> dict[str, Any]:
    """The StatusList structure, as CBOR value; equal lists give equal bytes on any machine."""
    return {"bits": statuses.bits, "lst": sparse_zlib.compress(statuses.data)}


def from_value(value: object) -> StatusList:
    """Inverse of `to_value`, for any width. Raises `DecodeError` with stage STATUS."""
    match value:
        case {"bits": int(bits), "lst": bytes(compressed)} if bits in (1, 2, 4, 8):
            pass
        case _:
            raise _refused(Reason.MALFORMED, "not a StatusList structure")
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(compressed, MAX_LIST_BYTES + 1)
    except zlib.error as error:
        raise _refused(Reason.MALFORMED, "the list is not zlib data") from error
    if len(data) > MAX_LIST_BYTES:
        raise _refused(Reason.TOO_LARGE, f"the list is larger than {MAX_LIST_BYTES} bytes")
    if not stream.eof or stream.unused_data:
        raise _refused(Reason.MALFORMED, "the list ends early or goes on after its end")
    return StatusList(bits, data)


@dataclass(frozen=True, slots=True)
class StatusToken:
    """A published list.

    Attributes:
        uri: the name by which permits refer to it.
        expires_at: after this it must not be used; None if it does not say.
        ttl_s: how long a copy may be kept before asking again, in seconds.
    """

    uri: str
    issued_at: datetime
    expires_at: datetime | None
    ttl_s: int | None
    statuses: StatusList


def sign(
    uri: str,
    value: dict[str, Any],
    signer: Signer,
    *,
    issued_at: datetime,
    expires_at: datetime,
    ttl_s: int,
) -> bytes:
    """Status List Token in CWT form, of the `value` that `to_value` made."""
    claims = {
        SUB: uri,
        IAT: int(issued_at.timestamp()),
        EXP: int(expires_at.timestamp()),
        TTL: ttl_s,
        STATUS_LIST: value,
    }
    return signing.sign(cbor.encode(claims), signer, typ=TYP)


def kid_of(data: bytes) -> str | None:
    """Which key a Status List Token says signed it, hexadecimal. Raises `DecodeError`."""
    return signing.parse(data).kid


def read(data: bytes, key: PublicKey | None = None) -> StatusToken:
    """Read a Status List Token, and verify its signature if `key` is given.

    Raises `DecodeError`.
    """
    message = signing.parse(data)
    if message.typ != TYP:
        raise _refused(Reason.MALFORMED, "typ is not that of a status list")
    if key is not None and not signing.verify_signature(message, key):
        raise _refused(Reason.BAD_SIGNATURE, "the status list is not signed by its key")
    try:
        claims = cbor.decode(message.payload)
    except cbor.CborError as error:
        raise _refused(Reason.MALFORMED, "the claims are not CBOR") from error
    match claims:
        case {2: str(uri), 6: int(issued_at)}:
            expires_at, ttl_s = claims.get(EXP), claims.get(TTL)
        case _:
            raise _refused(Reason.MALFORMED, "sub or iat is missing")
    if not isinstance(expires_at, int | None) or not isinstance(ttl_s, int | None):
        raise _refused(Reason.MALFORMED, "exp or ttl is not a number")
    return StatusToken(
        uri=uri,
        issued_at=_instant(issued_at),
        expires_at=None if expires_at is None else _instant(expires_at),
        ttl_s=ttl_s,
        statuses=from_value(claims.get(STATUS_LIST)),
    )


def _instant(seconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise _refused(Reason.MALFORMED, "not a time") from error


def _refused(reason: Reason, message: str) -> DecodeError:
    return DecodeError(Stage.STATUS, reason, message)
