"""A submission as capture software writes it: one JSON file beside the files of its fingers.

::

    {
      "person": {"full_name": "...", "gender": "female", "birth_date": "1990-01-01", ...},
      "samples": [{"file": "visit-17-right-index.png", "position": 2,
                   "again": "visit-17-right-index-2.png"}],
      "missing_fingers": [{"position": 7, "reason": "bandaged"}],
      "portrait": "visit-17.jpg",
      "permit_requested": true,
      "captured_at": "2026-03-02T17:30:00+08:00"
    }

``person`` has the fields of :class:`devices.terminal.types.Person`. A sample's file is a minutiae
record or an image (PNG, BMP, TIFF, WSQ) that the terminal extracts; further keys, all optional:

* ``position``: finger position code, ISO/IEC 19794-2 table 5;
* ``format``: of a record, see :class:`devices.terminal.types.SampleFormat`;
* ``resolution_ppi``: of an image, 500 or 1000, if the file does not say it;
* ``again``: a second capture of the same finger, compared with the first and not sent;
* ``extract``: ``"register"`` sends the image for the register to extract, where a city allows it.

Also optional: ``missing_fingers`` (reasons: :class:`devices.terminal.types.MissingReason`),
``portrait`` (PNG or JPEG), ``permit_requested``, ``captured_at``, and ``accept_findings``: true
insists on captures that the terminal finds doubtful. Unknown keys are refused: a misspelt one would
silently be something else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import Any

from devices.errors import SubmissionInvalidError
from devices.terminal.image import RESOLUTIONS_PPI
from devices.terminal.types import Gender, MissingFinger, MissingReason, Person, SampleFormat

MAX_FINGERS = 10
MAX_JSON_BYTES = 64 * 1024
_OPTIONAL = frozenset({"ethnicity"})
_FORMATS = {one.label: one for one in SampleFormat}
_REASONS = {one.label: one for one in MissingReason}
_KNOWN = frozenset(field.name for field in fields(Person))


@dataclass(frozen=True)
class SampleFile:
    """A finger in a file beside the JSON.

    Attributes:
        position: 0 takes it from the record.
        format: of a record; ``None`` for an image, or for ISO/IEC 19794-2:2005.
        resolution_ppi: of an image; ``None`` for what the file says.
        again: the file of a second capture; empty if there is none.
        at_register: whether the register is to extract it.
    """

    file: str
    position: int = 0
    format: SampleFormat | None = None
    resolution_ppi: int | None = None
    again: str = ""
    at_register: bool = False


@dataclass(frozen=True)
class Submission:
    """What a JSON file states; ``captured_at`` is aware, or ``None`` when it is left out.

    Attributes:
        portrait: a file; empty if there is none.
        accept_findings: whether doubtful captures are insisted on.
    """

    person: Person
    samples: tuple[SampleFile, ...]
    permit_requested: bool
    captured_at: datetime | None
    missing_fingers: tuple[MissingFinger, ...] = ()
    portrait: str = ""
    accept_findings: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        """Everything that lies beside the JSON, each once."""
        named = [name for one in self.samples for name in (one.file, one.again)]
        return tuple(dict.fromkeys(name for name in (*named, self.portrait) if name))


@dataclass(frozen=True)
class Applicant:
    """Somebody from a JSON file of their own; ``portrait`` is a file beside it, or empty."""

    person: Person
    missing_fingers: tuple[MissingFinger, ...] = ()
    portrait: str = ""


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
        frozenset(
            {"permit_requested", "captured_at", "missing_fingers", "portrait", "accept_findings"}
        ),
    )
    samples, missing = stated["samples"], _missing(stated.get("missing_fingers", []))
    least = 0 if missing else 1
    if not isinstance(samples, list) or not least <= len(samples) <= MAX_FINGERS:
        raise SubmissionInvalidError(f"samples must be a list of 1 to {MAX_FINGERS} fingers")
    return Submission(
        person=person_from(stated["person"]),
        samples=tuple(_sample(one) for one in samples),
        permit_requested=_truth(stated, "permit_requested", True),
        captured_at=_instant(stated.get("captured_at")),
        missing_fingers=missing,
        portrait=_file(stated["portrait"], "portrait") if "portrait" in stated else "",
        accept_findings=_truth(stated, "accept_findings", False),
    )


def read_applicant(content: bytes) -> Applicant:
    """An applicant from a JSON file of their own, with ``missing_fingers`` and ``portrait``.

    Raises:
        SubmissionInvalidError: naming what is wrong, without the values.
    """
    stated = dict(_table(_json(content), "the person"))
    missing = _missing(stated.pop("missing_fingers", []))
    portrait = _file(stated.pop("portrait"), "portrait") if "portrait" in stated else ""
    return Applicant(person_from(stated), missing, portrait)


def missing_finger(stated: str) -> MissingFinger:
    """From the words of a command line, e.g. ``7=bandaged``.

    Raises:
        SubmissionInvalidError: it is no such thing.
    """
    position, _, reason = stated.partition("=")
    number = int(position) if position.isascii() and position.isdigit() else 0
    return _missing([{"position": number, "reason": reason}])[0]


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
    optional = {"position", "format", "resolution_ppi", "again", "extract"}
    _only(table, "a sample", {"file"}, frozenset(optional))
    position = table.get("position", 0)
    if type(position) is not int or not 0 <= position <= MAX_FINGERS:
        raise SubmissionInvalidError(f"a sample's position must be 0 to {MAX_FINGERS}")
    stated_format = table.get("format")
    if stated_format is not None and stated_format not in _FORMATS:
        raise SubmissionInvalidError(f"a sample's format must be one of {', '.join(_FORMATS)}")
    ppi, where = table.get("resolution_ppi"), table.get("extract", "terminal")
    if ppi is not None and ppi not in RESOLUTIONS_PPI:
        raise SubmissionInvalidError("a sample's resolution_ppi must be 500 or 1000")
    if where not in ("terminal", "register"):
        raise SubmissionInvalidError("a sample's extract must be terminal or register")
    return SampleFile(
        file=_file(table["file"], "a sample's file"),
        position=position,
        format=_FORMATS[stated_format] if stated_format else None,
        resolution_ppi=ppi,
        again=_file(table["again"], "a sample's again") if "again" in table else "",
        at_register=where == "register",
    )


def _missing(stated: Any) -> tuple[MissingFinger, ...]:
    if not isinstance(stated, list) or len(stated) > MAX_FINGERS:
        raise SubmissionInvalidError(f"missing_fingers must be a list of at most {MAX_FINGERS}")
    found = []
    for one in stated:
        table = _table(one, "a missing finger")
        _only(table, "a missing finger", {"position", "reason"}, frozenset())
        position, reason = table["position"], table["reason"]
        if type(position) is not int or not 1 <= position <= MAX_FINGERS or reason not in _REASONS:
            raise SubmissionInvalidError(
                f"a missing finger has a position of 1 to {MAX_FINGERS} and a reason: "
                f"{', '.join(_REASONS)}"
            )
        found.append(MissingFinger(position, _REASONS[reason]))
    return tuple(found)


def _truth(table: dict[str, Any], name: str, default: bool) -> bool:
    value = table.get(name, default)
    if not isinstance(value, bool):
        raise SubmissionInvalidError(f"{name} must be true or false")
    return value


def _file(name: Any, what: str) -> str:
    if not isinstance(name, str) or not _is_plain_name(name):
        raise SubmissionInvalidError(f"{what} must be the name of a file beside the JSON")
    return name


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
