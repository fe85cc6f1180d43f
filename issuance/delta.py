"""What changed between two trust bundles: a few kilobytes a day in place of the whole.

Theory of operation. Every publication signs every status list anew, and a compressed list changes
from end to end when one entry does. So a delta does not carry lists: it names the entries that
changed since a base version, and whoever has the base, or any version after it, sets them, packs
the list again (`sparse_zlib` writes the same bytes everywhere) and has the published file. It
carries files that are new as they are, and the names of those to keep.

A delta needs no trust of its own and is not signed. What it leads to is a complete bundle whose
hash it states, and that bundle is verified like any other; a delta that was altered, or meant for
another bundle, leads to an error and the old bundle stays.

Because it sets entries to what they are now, a delta since Monday fits the bundles of Monday,
Tuesday and Wednesday alike: a few of them serve everybody.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from tuf.api.metadata import Metadata, Timestamp

from issuance import bundle, cbor, sparse_zlib, status_list
from issuance.errors import DecodeError, TrustError
from issuance.status_list import StatusList

FORMAT: Final = 1
MAX_DELTA_BYTES: Final = 1 << 20
# Unpacked; metadata repeats itself and packs well.
_MAX_PLAIN_BYTES: Final = 4 << 20
# All lists that a delta may bring into being, unpacked.
_MAX_NEW_LIST_BYTES: Final = 64 << 20
_TIMESTAMP: Final = "metadata/timestamp.json"
_LIST_PATH: Final = re.compile(r"targets/status/[0-9a-f]{64}\.([1-9][0-9]{0,8})")


@dataclass(frozen=True, slots=True)
class Delta:
    """A delta as one file.

    Attributes:
        since: fits bundles from this version
        version: to this one, to which it leads.
    """

    since: int
    version: int
    data: bytes


def is_delta(data: bytes) -> bool:
    """Whether `data` begins like a delta rather than like a bundle (a zip archive)."""
    return data[:2] == b"\x78\xda"


def version_of(packed: bytes) -> int:
    """The version of a bundle, taken from it unverified. Raises `TrustError` with NOT_A_BUNDLE."""
    return _version(bundle.unpack(packed))


def make(old: bytes, new: bytes) -> Delta:
    """The delta that turns `old`, and every version between the two, into `new`.

    Raises `TrustError` unless both are bundles, and `old` is not the newer.
    """
    before, after = bundle.unpack(old), bundle.unpack(new)
    since, version = _version(before), _version(after)
    if since > version:
        raise TrustError("DELTA_UNFIT", f"a delta leads from version {since} to {version}: never")
    old_lists = {number: data for number, _, data in _lists(before)}
    changes: list[Any] = []
    files = {name: data for name, data in after.items() if before.get(name) != data}
    for number, name, data in _lists(after):
        if name in files and (entry := _changes(name, old_lists.get(number), data)):
            changes.append(entry)
            del files[name]
    document = {
        "format": FORMAT,
        "since": since,
        "version": version,
        "sha256": hashlib.sha256(new).digest(),
        "keep": sorted(name for name in after if before.get(name) == after[name]),
        "files": files,
        "lists": changes,
    }
    return Delta(since, version, zlib.compress(cbor.encode(document), 9))


def apply(old: bytes, delta: bytes) -> bytes:
    """The bundle that `delta` leads to from `old`, which this device has verified before.

    The result is complete but not verified: load it with the device's memory.

    Raises `TrustError`: NOT_A_DELTA, or DELTA_UNFIT for another bundle than it was made for.
    """
    document = _read(delta)
    files = bundle.unpack(old)
    have = _version(files)
    if have == document["version"]:
        return old
    if not document["since"] <= have < document["version"]:
        raise TrustError(
            "DELTA_UNFIT",
            f"the delta leads from version {document['since']} to {document['version']}, "
            f"and version {have} is here; fetch the whole bundle",
        )
    try:
        new = {name: files[name] for name in document["keep"]} | document["files"]
        tokens = {number: data for number, _, data in _lists(files)}
        allowance = _MAX_NEW_LIST_BYTES
        for name, number, head, tail, size, changed in document["lists"]:
            token = tokens.get(number)
            entries = status_list.read(token).statuses if token else _empty(size, allowance)
            allowance -= 0 if token else size
            new[name] = head + sparse_zlib.compress(_set(entries, changed)) + tail
        packed = bundle.pack(new)
    except (DecodeError, KeyError, ValueError, TypeError, IndexError) as error:
        raise _unfit() from error
    if hashlib.sha256(packed).digest() != document["sha256"]:
        raise _unfit()
    return packed


def _read(data: bytes) -> dict[str, Any]:
    """The checked structure of a delta file."""
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(data[: MAX_DELTA_BYTES + 1], _MAX_PLAIN_BYTES + 1)
        whole = len(data) <= MAX_DELTA_BYTES and len(plain) <= _MAX_PLAIN_BYTES and stream.eof
        document: Any = cbor.decode(plain) if whole and not stream.unused_data else None
    except (zlib.error, cbor.CborError) as error:
        raise _not_a_delta("it is damaged or something else") from error
    match document:
        case {
            "format": int(number),
            "since": int(),
            "version": int(),
            "sha256": bytes(),
            "keep": list(keep),
            "files": dict(files),
            "lists": list(lists),
        }:
            pass
        case _:
            raise _not_a_delta("it is cut short, too large or something else")
    if number != FORMAT:
        raise _not_a_delta(f"it has format {number}; update the verifier")
    contents = all(isinstance(k, str) and isinstance(v, bytes) for k, v in files.items())
    names = all(isinstance(name, str) for name in keep)
    if not contents or not names or not all(_is_change(entry) for entry in lists):
        raise _not_a_delta("its parts have the wrong types")
    checked: dict[str, Any] = document
    return checked


def _is_change(entry: object) -> bool:
    match entry:
        case [str(), int(), bytes(), bytes(), int(), bytes()]:
            return True
    return False


def _changes(name: str, old: bytes | None, new: bytes) -> list[Any] | None:
    """How to make the token `new` out of `old`; None where it must be sent as it is."""
    after = status_list.read(new).statuses
    before = status_list.read(old).statuses if old else StatusList(after.bits, b"")
    packed = sparse_zlib.compress(after.data)
    at = new.find(packed)
    grown = before.data.ljust(len(after.data), b"\0")
    if at < 0 or before.bits != after.bits or len(grown) != len(after.data):
        return None
    changed = _pack_changes(StatusList(after.bits, grown), after)
    if len(changed) > len(packed):
        return None
    head, tail = new[:at], new[at + len(packed) :]
    return [name, int(name.rpartition(".")[2]), head, tail, len(after.data), changed]


def _pack_changes(before: StatusList, after: StatusList) -> bytes:
    """Entries that differ, in order: the distance from the last, and the value, as one varint."""
    size = len(after.data)
    different = int.from_bytes(before.data, "big") ^ int.from_bytes(after.data, "big")
    per_byte = 8 // after.bits
    out = bytearray()
    last = -1
    for found in re.finditer(rb"[^\x00]", different.to_bytes(size, "big")):
        for index in range(found.start() * per_byte, (found.start() + 1) * per_byte):
            if before[index] != after[index]:
                _append_varint(out, (index - last - 1) << after.bits | after[index])
                last = index
    return bytes(out)


def _set(entries: StatusList, changed: bytes) -> bytes:
    """The data of `entries` with the changes made; raises IndexError beyond its end."""
    data = bytearray(entries.data)
    mask = (1 << entries.bits) - 1
    index = -1
    for number in _varints(changed):
        index += (number >> entries.bits) + 1
        bit = index * entries.bits
        shift = bit & 7
        data[bit >> 3] = data[bit >> 3] & ~(mask << shift) | (number & mask) << shift
    return bytes(data)


def _empty(size: int, allowance: int) -> StatusList:
    if not 0 < size <= min(status_list.MAX_LIST_BYTES, allowance):
        raise ValueError("a new list is larger than any of ours")
    return StatusList(status_list.BITS, bytes(size))


def _append_varint(out: bytearray, number: int) -> None:
    """Seven bits a byte, least significant first, the high bit set on all but the last."""
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _varints(data: bytes) -> Iterator[int]:
    number, shift = 0, 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if shift > 35:
            raise ValueError("a number is too large")
        if byte < 0x80:
            yield number
            number, shift = 0, 0
    if shift:
        raise ValueError("the changes end inside a number")


def _lists(files: dict[str, bytes]) -> Iterator[tuple[int, str, bytes]]:
    """(list number, member name, token) of every status list in a bundle, by number."""
    found = [(match, name) for name in files if (match := _LIST_PATH.fullmatch(name))]
    for match, name in sorted(found, key=lambda item: int(item[0][1])):
        yield int(match[1]), name, files[name]


def _version(files: dict[str, bytes]) -> int:
    try:
        return int(Metadata[Timestamp].from_bytes(files[_TIMESTAMP]).signed.version)
    except Exception as error:
        # python-tuf raises whatever its parser met; all of it means the same here.
        raise TrustError("NOT_A_BUNDLE", "the file is not a trust bundle: no version") from error


def _not_a_delta(why: str) -> TrustError:
    return TrustError("NOT_A_DELTA", f"the file is not a delta of a trust bundle: {why}")


def _unfit() -> TrustError:
    return TrustError(
        "DELTA_UNFIT", "the delta does not fit the bundle that is here; fetch the whole bundle"
    )
