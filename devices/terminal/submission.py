"""A submission as capture software writes it: one JSON file beside the records of its fingers.

::

    {
      "person": {"full_name": "...", "gender": "female", "birth_date": "1990-01-01", ...},
      "samples": [{"file": "visit-17-right-index.iso", "position": 2,
                   "format": "iso-19794-2-2005"}],
      "permit_requested": true,
      "captured_at": "2026-03-02T17:30:00+08:00"
    }

``person`` has the fields of :class:`devices.terminal.types.Person`. ``position``, ``format`` (see
:class:`devices.terminal.types.SampleFormat`), ``permit_requested`` and ``captured_at`` may be left
out. Unknown keys are refused: a misspelt one
would silently be something else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import Any

from devices.errors import SubmissionInvalidError
from devices.terminal.types import Gender, Person, SampleFormat

MAX_FINGERS = 10
MAX_JSON_BYTES = 64 * 1024
_OPTIONAL = frozenset({"ethnicity"})
_FORMATS = {one.label: one for one in SampleFormat}
_KNOWN = frozenset(field.name for field in fields(Person))


@dataclass(frozen=True)
class SampleFile:
    """A finger's record in a file beside; ``position`` 0 takes it from the record."""

    file: str
    position: int = 0
    format: SampleFormat = SampleFormat.ISO_19794_2_2005


@dataclass(frozen=True)
class Submission:
    """What a JSON file states; ``captured_at`` is aware, or ``None`` when it is left out."""

    person: Person
    samples: tuple[SampleFile, ...]
    permit_requested: bool
    captured_at: datetime | None


def read_submission(content: bytes) -> Submission:
    """A submission from its JSON.

    Raises:
        SubmissionInvalidError: naming what is wrong, without the values.
    """
    stated = _table(_json(content), "the submission")
    _only(
        stated,
        "the submission",
        {"person", "samples"},
        frozenset({"permit_requested", "captured_at"}),
    )
    samples = stated["samples"]
    if not isinstance(samples, list) or not 1 <= len(samples) <= MAX_FINGERS:
        raise SubmissionInvalidError(f"samples must be a list of 1 to {MAX_FINGERS} fingers")
    permit_requested = stated.get("permit_requested", True)
    if not isinstance(permit_requested, bool):
        raise SubmissionInvalidError("permit_requested must be true or false")
    return Submission(
        person=person_from(stated["person"]),
        samples=tuple(_sample(one) for one in samples),
        permit_requested=permit_requested,
        captured_at=_instant(stated.get("captured_at")),
    )


def read_person(content: bytes) -> Person:
    """An applicant from a JSON file of their own.

    Raises:
        SubmissionInvalidError: naming what is wrong, without the values.
    """
    return person_from(_json(content))


def person_from(stated: Any) -> Person:
    """An applicant from the JSON object that states them.

    Raises:
        SubmissionInvalidError: naming what is wrong, without the values.
    """
    table = _table(stated, "the person")
    _only(table, "the person", _KNOWN - _OPTIONAL, _OPTIONAL)
    for name, value in table.items():
        if not isinstance(value, str):
            raise SubmissionInvalidError(f"person.{name} must be a text")
    try:
        return Person(
            **{
                **table,
                "gender": Gender[table["gender"].upper()],
                "birth_date": date.fromisoformat(table["birth_date"]),
                "arrival_date": date.fromisoformat(table["arrival_date"]),
            }
        )
    except (KeyError, ValueError) as error:
        raise SubmissionInvalidError(
            "the person's gender must be male, female or other, and their dates YYYY-MM-DD"
        ) from error


def _json(content: bytes) -> Any:
    if len(content) > MAX_JSON_BYTES:
        raise SubmissionInvalidError(f"a submission's JSON has at most {MAX_JSON_BYTES} bytes")
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise SubmissionInvalidError("this is no JSON file in UTF-8") from error


def _table(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SubmissionInvalidError(f"{what} must be a JSON object")
    return value


def _only(
    table: dict[str, Any], what: str, required: set[str] | frozenset[str], optional: frozenset[str]
) -> None:
    missing = sorted(required - table.keys())
    unknown = sorted(str(key)[:40] for key in table.keys() - required - optional)
    if missing or unknown:
        raise SubmissionInvalidError(
            f"{what} must have exactly: {', '.join(sorted(required))}; "
            f"missing {missing or 'none'}, unknown {unknown or 'none'}"
        )


def _sample(stated: Any) -> SampleFile:
    table = _table(stated, "a sample")
    _only(table, "a sample", {"file"}, frozenset({"position", "format"}))
    file, position = table["file"], table.get("position", 0)
    if not isinstance(file, str) or not _is_plain_name(file):
        raise SubmissionInvalidError("a sample's file must be the name of a file beside the JSON")
    if type(position) is not int or not 0 <= position <= MAX_FINGERS:
        raise SubmissionInvalidError(f"a sample's position must be 0 to {MAX_FINGERS}")
    stated_format = table.get("format", SampleFormat.ISO_19794_2_2005.label)
    if stated_format not in _FORMATS:
        raise SubmissionInvalidError(f"a sample's format must be one of {', '.join(_FORMATS)}")
    return SampleFile(file, position, _FORMATS[stated_format])


def _is_plain_name(name: str) -> bool:
    return bool(name) and not name.startswith(".") and not any(c in name for c in "/\\:\0")


def _instant(stated: Any) -> datetime | None:
    if stated is None:
        return None
    try:
        at = datetime.fromisoformat(stated)
    except (TypeError, ValueError) as error:
        raise SubmissionInvalidError("captured_at must be a date and time, ISO 8601") from error
    if at.tzinfo is None:
        raise SubmissionInvalidError("captured_at must say its offset from UTC, e.g. +08:00")
    return at
