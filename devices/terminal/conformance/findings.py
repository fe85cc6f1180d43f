"""What a check has found, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    """The values are what people and programs read."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        check: a stable name, e.g. ``tls-1.2``.
        found: what was seen; of a skipped check, why it was.
        advice: what to do; empty where there is nothing to do.
    """

    check: str
    outcome: Outcome
    found: str
    advice: str = ""


def passed(check: str, found: str) -> Finding:
    return Finding(check, Outcome.PASSED, found)


def failed(check: str, found: str, advice: str) -> Finding:
    return Finding(check, Outcome.FAILED, found, advice)


def skipped(check: str, found: str, advice: str = "") -> Finding:
    return Finding(check, Outcome.SKIPPED, found, advice)
