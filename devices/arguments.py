"""Arguments that calls of several workflows have in common, and the ranges they must be in."""

from __future__ import annotations

from devices.errors import ArgumentInvalidError

MAX_REASON = 200  # characters
DEFAULT_PAGE, MAX_PAGE = 100, 500  # rows


def check_reason(reason: str) -> None:
    """Raises ArgumentInvalidError unless there are 1 to 200 characters of reason."""
    if not 1 <= len(reason) <= MAX_REASON or not reason.strip():
        raise ArgumentInvalidError(
            f"give a reason of 1 to {MAX_REASON} characters, not {len(reason)}"
        )


def rows_of(page_size: int) -> int:
    """How many rows a page of a list has: 1 to 500 as asked for, 100 for 0.

    Raises:
        ArgumentInvalidError: the page size is out of range.
    """
    if not 0 <= page_size <= MAX_PAGE:
        raise ArgumentInvalidError(f"page_size must be 1 to {MAX_PAGE}, not {page_size}")
    return page_size or DEFAULT_PAGE
