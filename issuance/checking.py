"""Many permits at once: a verdict for each, what stands out between them, and a report.

An employer has a roster, a school a folder of photographs. Each entry is judged on its own; a
permit that appears twice is pointed out, because two people cannot hold one.
"""

from __future__ import annotations

import csv
import enum
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from issuance import memory
from issuance.errors import SourceError
from issuance.profile import GENERAL
from issuance.sources import Entry
from issuance.trust import TrustStore
from issuance.types import Reason, Verdict
from issuance.verifier import verify

NOT_READ: Final = "NOT_READ"
SEEN_BEFORE: Final = "SEEN_BEFORE"
_VERDICT_COLUMNS: Final = ("result", "reason", "permit_number", "full_name", "valid_until", "note")


class Outcome(enum.StrEnum):
    VALID = "valid"
    REFUSED = "refused"
    NOT_JUDGED = "not-judged"


@dataclass(frozen=True, slots=True)
class Checked:
    """An entry and what came of it.

    Attributes:
        verdict: None where nothing could be read.
        seen_before: where the same permit number came up before, if it did.
    """

    entry: Entry
    verdict: Verdict | None
    seen_before: str | None = None

    @property
    def outcome(self) -> Outcome:
        if self.verdict is None or self.verdict.reason is Reason.INTERNAL:
            return Outcome.NOT_JUDGED
        return Outcome.VALID if self.verdict.valid else Outcome.REFUSED

    @property
    def reason(self) -> str:
        return NOT_READ if self.verdict is None else self.verdict.reason.value

    @property
    def where(self) -> str:
        return f"{self.entry.source}, {self.entry.place}" if self.entry.place else self.entry.source


@dataclass(slots=True)
class Checker:
    """Judges entries one after the other, by one trust bundle and one clock reading.

    Attributes:
        counts: outcome -> how many so far.
        reasons: reason of what was not valid -> how many so far.
        repeated: how many permits came up again.
    """

    trust: TrustStore
    now: datetime
    purpose: str = GENERAL
    counts: Counter[Outcome] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    _seen: dict[str, str] = field(default_factory=dict)

    def check(self, entry: Entry) -> list[Checked]:
        """What came of an entry; several where it shows several permits."""
        if entry.problem is not None or not entry.texts:
            return [self._count(Checked(entry, None))]
        return [
            self._count(Checked(entry, verdict, self._before(verdict, entry)))
            for verdict in self.verdicts(entry.texts)
        ]

    def verdicts(self, texts: Sequence[str]) -> list[Verdict]:
        """On the permits among `texts`; on the first text if none of them is one."""
        verdicts = [verify(text, self.trust, self.now, purpose=self.purpose) for text in texts]
        # A picture may show other symbols beside the permit's.
        return [v for v in verdicts if v.reason is not Reason.NOT_A_PERMIT] or verdicts[:1]

    def _before(self, verdict: Verdict, entry: Entry) -> str | None:
        number = verdict.shown.get("permit_number")
        if number is None:
            return None
        here = Checked(entry, verdict).where
        before = self._seen.setdefault(number, here)
        return before if before != here else None

    def _count(self, checked: Checked) -> Checked:
        self.counts[checked.outcome] += 1
        if checked.outcome is not Outcome.VALID:
            self.reasons[checked.reason] += 1
        self.repeated += checked.seen_before is not None
        return checked


def report_format(path: Path) -> str:
    """The ending ".csv" or ".json". Raises `SourceError` for another."""
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".json"):
        raise SourceError("a report is a .csv or .json file")
    return suffix


def write_report(path: Path, results: Sequence[Checked]) -> None:
    """Write a .csv or .json report, replacing what was there. Raises `SourceError`, OSError."""
    if report_format(path) == ".csv":
        # The mark by which spreadsheets know UTF-8.
        text = "\ufeff" + "".join(_csv_lines(results))
    else:
        text = json.dumps([to_dict(one) for one in results], ensure_ascii=False, indent=1) + "\n"
    memory.replace_file(path, text.encode("utf-8"))


def to_dict(checked: Checked) -> dict[str, object]:
    """A result as JSON values; the keys and tokens are stable."""
    verdict = checked.verdict
    return {
        "source": checked.entry.source,
        "place": checked.entry.place,
        "outcome": checked.outcome.value,
        "reason": checked.reason,
        "stage": verdict.stage.value if verdict and verdict.stage else None,
        "message_en": verdict.message_en if verdict else checked.entry.problem,
        "message_zh": verdict.message_zh if verdict else "无法读取",
        "shown": dict(verdict.shown) if verdict else {},
        "seen_before": checked.seen_before,
        "columns": dict(checked.entry.columns),
    }


class _Lines:
    """Collects what a csv writer writes."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, text: str) -> int:
        self.lines.append(text)
        return len(text)


def _csv_lines(results: Sequence[Checked]) -> Iterator[str]:
    own: dict[str, None] = {}
    for one in results:
        own.update(dict.fromkeys(one.entry.columns))
    target = _Lines()
    writer = csv.writer(target)
    heads = ("source", "place", *_VERDICT_COLUMNS)
    writer.writerow([*heads, *(f"{name} (roster)" if name in heads else name for name in own)])
    for one in results:
        shown: Mapping[str, str] = one.verdict.shown if one.verdict else {}
        note = one.entry.problem or (one.verdict.message_zh if one.verdict else "")
        if one.seen_before:
            note = f"{SEEN_BEFORE}: {one.seen_before}"
        cells = [
            one.entry.source,
            one.entry.place,
            one.outcome.value,
            one.reason,
            shown.get("permit_number", ""),
            shown.get("full_name", ""),
            shown.get("valid_until", ""),
            note,
            *(one.entry.columns.get(name, "") for name in own),
        ]
        writer.writerow([_harmless(cell) for cell in cells])
    yield from target.lines


def _harmless(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell
