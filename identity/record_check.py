"""Whether a finger minutiae record is one that the register takes: what is wrong, where."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from devices.terminal.conformance import Finding, failed, passed, skipped
from devices.terminal.types import SampleFormat
from matcher import codec, codec_2011, codec_ansi378
from matcher.errors import DecodeError
from matcher.formats import RecordFormat, decode_as, formats_of
from matcher.types import FingerPosition

if TYPE_CHECKING:
    from matcher.types import Template

AROUND = 8  # bytes shown on either side
CHECK = "template"
_REWRITTEN: dict[RecordFormat, Callable[[bytes], bytes]] = {
    RecordFormat.ISO_19794_2_2005: lambda record: codec.serialize(codec.parse(record)),
    RecordFormat.ISO_19794_2_2011: lambda record: codec_2011.serialize(codec_2011.parse(record)),
    RecordFormat.ANSI_INCITS_378_2004: lambda record: codec_ansi378.serialize(
        codec_ansi378.parse_2004(record)
    ),
    RecordFormat.ANSI_INCITS_378_2009: lambda record: codec_ansi378.serialize(
        codec_ansi378.parse_2009(record)
    ),
}


def examine(name: str, record: bytes, stated: RecordFormat | None = None) -> list[Finding]:
    """Read a record as strictly as the register does, and write it back.

    Args:
        name: of the record, for people.
        stated: its format; found out by reading where it is left out.
    """
    if len(record) > codec.MAX_RECORD_BYTES:
        found = f"{name}: {len(record):,} bytes; a record has at most {codec.MAX_RECORD_BYTES:,}"
        return [failed(CHECK, found, "Leave extended data out, or capture fewer minutiae.")]
    if stated is None:
        stated, *others = formats_of(record) or [_nearest(record)]
        if others:
            found = f"{name}: it reads as {stated.standard} and as {others[0].standard} alike"
            return [failed(CHECK, found, "Such a record is refused as FORMAT_AMBIGUOUS.")]
    label = SampleFormat(stated).label
    try:
        views = decode_as(stated, record)
    except DecodeError as error:
        where = "" if error.offset is None else f"; {_bytes_at(record, error.offset)}"
        found = f"{name}: not {stated.standard}: {error.reason}, {error}{where}"
        advice = f"Correct what writes it; the layout is {stated.standard}'s."
        return [failed(CHECK, found, advice)]
    if len(views) != 1:
        found = f"{name}: {len(views)} finger views"
        return [failed(CHECK, found, "Write one record for each finger, with one view.")]
    if _REWRITTEN[stated](record) != record:
        found = f"{name}: read as {stated.standard} and written back, it differs"
        return [failed(CHECK, found, "This is a fault of anju's: please report it.")]
    (view,) = views
    finger = view.position.name.lower().replace("_", " ")
    text = f"{name}: {label}, {finger}, {len(view)} minutiae, {view.width} x {view.height} px"
    findings = [passed(CHECK, f"{text} (at 500 ppi); written back byte for byte")]
    if view.position is FingerPosition.UNKNOWN:
        found = f"{name}: the record does not say which finger it is"
        findings.append(skipped(CHECK, found, "Say so in Sample.position."))
    return [*findings, _usable(name, view)]


def _usable(name: str, view: Template) -> Finding:
    try:
        from matcher.errors import FailureToEnrolError
        from matcher.matcher import Matcher
    except ModuleNotFoundError:
        found = f"{name}: whether it is good enough was not looked at"
        return skipped(CHECK, found, "Install anju[terminal,recheck].")
    try:
        Matcher.open(None).check([view])
    except FailureToEnrolError as error:
        found = f"{name}: well-formed, and no use: {error.reason}, {error}"
        return failed(CHECK, found, "Nobody could be recognised by it: capture again.")
    return passed(CHECK, f"{name}: good enough to be enrolled")


def _nearest(record: bytes) -> RecordFormat:
    """The format whose reader gets furthest."""

    def reached(one: RecordFormat) -> int:
        try:
            decode_as(one, record)
        except DecodeError as error:
            return -1 if error.offset is None else error.offset
        return len(record)

    return max(RecordFormat, key=reached)


def _bytes_at(record: bytes, offset: int) -> str:
    start = max(0, offset - AROUND)
    before, after = record[start:offset].hex(" "), record[offset : offset + AROUND].hex(" ")
    return f"bytes from {start}: {before} [{after or 'the end'}]"
