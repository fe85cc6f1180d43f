"""A clock, a city and a holder for the tests of `issuance`. Every name is invented."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from issuance.profile import Profile
from issuance.types import Gender, Holder

# 10:00 on a Tuesday in Shanghai.
START: Final = datetime(2026, 11, 24, 2, 0, 0, tzinfo=UTC)
RULES: Final = Profile("https://anju.example.cn", "示例市公安局")
HOLDER: Final = Holder(
    full_name="张示例",
    gender=Gender.MALE,
    birth_date=date(1990, 5, 17),
    residence_address="示例街道和平路 100 号 3 幢 2 单元 501 室",
    residence_division="320505",
    household_division="341225",
)


class Clock:
    """A clock that a test sets; callable like the real ones."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **parts: float) -> datetime:
        self.now += timedelta(**parts)
        return self.now


def holder(**changes: Any) -> Holder:
    return replace(HOLDER, **changes)
