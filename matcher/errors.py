"""What can go wrong in ``matcher``, split by what the caller would do about it."""

from __future__ import annotations


class MatcherError(Exception):
    """Base of every error this package raises on purpose."""


class DecodeError(MatcherError):
    """The bytes are not a record of the stated format: capture or export again.

    Attributes:
        reason: short upper-case token for machines, e.g. ``TRUNCATED``.
        offset: byte offset into the record where decoding stopped, or ``None``.
    """

    def __init__(self, reason: str, message: str, offset: int | None = None) -> None:
        super().__init__(message if offset is None else f"{message} (at byte {offset})")
        self.reason = reason
        self.offset = offset


class FailureToEnrolError(MatcherError):
    """The template decodes but is too poor to become a reference: capture the finger again.

    Failure to enrol (FTE) in the sense of ISO/IEC 19795-1.

    Attributes:
        reason: short upper-case token, e.g. ``TOO_FEW_MINUTIAE``.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class UnknownSubjectError(MatcherError):
    """No reference is enrolled under that subject id."""

    def __init__(self, subject_id: str) -> None:
        super().__init__(f"no reference is enrolled for subject {subject_id!r}")
        self.subject_id = subject_id


class IndexStateError(MatcherError):
    """The snapshot cannot be used; rebuild the index from the register."""
