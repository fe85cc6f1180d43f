"""What can go wrong in the register, split by what the caller would do differently.

Each error has a ``reason``: the stable token that travels as google.rpc.ErrorInfo.reason.
"""

from __future__ import annotations


class IdentityError(Exception):
    """Base of every error this package raises on purpose."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class InvalidRequestError(IdentityError):
    """Fix the request: it can never succeed as it is."""


class NotFoundError(IdentityError):
    """What the request names does not exist, or not for this caller."""


class WithheldError(NotFoundError):
    """It exists, but not for this caller, who hears what is said of something unknown.

    In the register's own log and numbers it is the refusal that it is.
    """


class StateError(IdentityError):
    """The thing is not in a state that allows this; nothing was changed."""


class IdempotencyConflictError(IdentityError):
    """The idempotency key was used for another request: a client's mistake, choose a new key."""

    def __init__(self) -> None:
        super().__init__(
            "IDEMPOTENCY_CONFLICT",
            "this idempotency key was already used for a different request; use a new one",
        )


class PermissionDeniedError(IdentityError):
    """The caller is known but may not do this."""


class UnauthenticatedError(IdentityError):
    """The caller is not known: its certificate names nobody we trust."""


class DeadlineError(IdentityError):
    """The caller's deadline passed first; call again with the same idempotency key."""

    def __init__(self) -> None:
        super().__init__(
            "DEADLINE_EXCEEDED",
            "the deadline passed before the work was done; call again with the same "
            "idempotency key",
        )


class UnavailableError(IdentityError):
    """Not now: try again later, nothing is lost."""


class OverloadError(IdentityError):
    """Too many calls, by this terminal (QUOTA) or by all (BUSY): come back later, nothing is lost.

    Attributes:
        retry_after_s: when to come back, in seconds.
    """

    def __init__(self, reason: str, message: str, retry_after_s: float) -> None:
        super().__init__(reason, message)
        self.retry_after_s = retry_after_s


class StorageFullError(IdentityError):
    """The disk is full; nothing of this request was kept."""

    def __init__(self) -> None:
        super().__init__(
            "DISK_FULL",
            "the register's disk is full and the request was not kept; free space, then retry",
        )


class ConfigError(IdentityError):
    """The configuration or the working directory is wrong; the server does not start."""

    def __init__(self, message: str) -> None:
        super().__init__("CONFIG_INVALID", message)


class SealError(IdentityError):
    """Sealed data cannot be opened: a wrong key, damage, or an erased person."""
