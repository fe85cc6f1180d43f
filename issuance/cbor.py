"""CBOR (RFC 8949), the part that permits use: written deterministically, read strictly.

Reading is our own because a verifier reads what strangers print. A general library turns tags into
dates, fractions, regular expressions and shared references, keeps the last of two equal map keys,
and recurses as deep as the input says. This reader knows integers, strings, arrays, maps, tags as
plain values, floats, and three simple values; it refuses duplicate map keys, indefinite lengths,
trailing bytes, and nesting beyond `MAX_DEPTH`. It accepts integers and lengths that are not in
shortest form, as RFC 8949 section 4.1 lets a lenient reader do.

Writing uses cbor2 on maps sorted as section 4.2.1 asks: bytewise by encoded key. (cbor2's own
`canonical=True` is the older length-first order of RFC 7049.)
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass
from typing import Any, Final

import cbor2

MAX_DEPTH: Final = 16
_KEY_TYPES: Final = (int, str, bytes)


class CborError(ValueError):
    """The bytes are not one well-formed CBOR item."""


class DuplicateKeyError(CborError):
    """A map names the same key twice."""


@dataclass(frozen=True, slots=True)
class Tagged:
    """A tagged item, uninterpreted (RFC 8949 section 3.4)."""

    tag: int
    value: Any


def encode(value: Any) -> bytes:
    """Deterministic encoding of integers, strings, bytes, booleans, None, lists, maps and `Tagged`.

    Shortest integers and lengths, map keys sorted bytewise (RFC 8949 section 4.2.1). Floats are
    refused with TypeError: nothing here needs them, and their shortest form is easy to get wrong.
    """
    return cbor2.dumps(_sorted(value))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        keyed = sorted((_encoded_key(key), key) for key in value)
        return {key: _sorted(value[key]) for _, key in keyed}
    if isinstance(value, list | tuple):
        return [_sorted(item) for item in value]
    if isinstance(value, Tagged):
        return cbor2.CBORTag(value.tag, _sorted(value.value))
    if value is None or isinstance(value, int | str | bytes):
        return value
    raise TypeError(f"cannot encode {type(value).__name__}")


# Keys are the few numbers and words of our formats, never personal data.
_encoded_key = functools.lru_cache(maxsize=256, typed=True)(cbor2.dumps)


def decode(data: bytes) -> Any:
    """The one item that `data` holds: int, float, bytes, str, list, dict, Tagged, bool or None.

    Map keys are int, str or bytes. Raises `CborError` (and its child `DuplicateKeyError`).
    """
    value, end = _item(data, 0, 0)
    if end != len(data):
        raise CborError(f"{len(data) - end} bytes after the item")
    return value


def _item(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if depth > MAX_DEPTH:
        raise CborError(f"nested deeper than {MAX_DEPTH}")
    if at >= len(data):
        raise CborError("ends inside an item")
    initial = data[at]
    major, argument, at = initial >> 5, initial & 31, at + 1
    if major == 7:
        return _simple(data, at - 1, argument)
    # Most arguments are in the initial byte; a verifier reads 40 items for every permit.
    if argument > 23:
        argument, at = _argument(data, at, argument)
    if major == 3:
        end = at + argument
        if end > len(data):
            raise CborError("string longer than the data")
        return _text(data[at:end]), end
    if major == 0:
        return argument, at
    if major == 5:
        return _map(data, at, argument, depth)
    if major == 2:
        end = at + argument
        if end > len(data):
            raise CborError("string longer than the data")
        return data[at:end], end
    if major == 4:
        return _array(data, at, argument, depth)
    if major == 1:
        return -1 - argument, at
    value, at = _item(data, at, depth + 1)
    return Tagged(argument, value), at


def _argument(data: bytes, at: int, info: int) -> tuple[int, int]:
    """The argument that follows an initial byte with `info` above 23."""
    if info > 27:
        raise CborError("indefinite length or reserved value")
    end = at + (1 << (info - 24))
    if end > len(data):
        raise CborError("ends inside a number")
    return int.from_bytes(data[at:end], "big"), end


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise CborError("text is not UTF-8") from error


def _array(data: bytes, at: int, count: int, depth: int) -> tuple[list[Any], int]:
    # Every element takes at least a byte, so a false count cannot reserve memory.
    if count > len(data) - at:
        raise CborError("array longer than the data")
    items = []
    for _ in range(count):
        value, at = _item(data, at, depth + 1)
        items.append(value)
    return items, at


def _map(data: bytes, at: int, count: int, depth: int) -> tuple[dict[Any, Any], int]:
    if count > (len(data) - at) // 2:
        raise CborError("map longer than the data")
    items: dict[Any, Any] = {}
    for _ in range(count):
        key, at = _item(data, at, depth + 1)
        # Exact types: bool is an int to Python, and 1 == True would hide a duplicate.
        if type(key) not in _KEY_TYPES:
            raise CborError("map key is not an integer or string")
        if key in items:
            raise DuplicateKeyError("map names a key twice")
        items[key], at = _item(data, at, depth + 1)
    return items, at


def _simple(data: bytes, at: int, info: int) -> tuple[Any, int]:
    fixed = {20: False, 21: True, 22: None}
    if info in fixed:
        return fixed[info], at + 1
    sizes = {25: ">e", 26: ">f", 27: ">d"}
    if info not in sizes:
        raise CborError("simple value without a meaning here")
    end = at + 1 + struct.calcsize(sizes[info])
    if end > len(data):
        raise CborError("ends inside a number")
    return struct.unpack(sizes[info], data[at + 1 : end])[0], end
