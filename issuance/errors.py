"""Everything `issuance` raises.

A verdict is never an error: a revoked permit is a `Verdict`. These are for callers that must do
something else: correct a request, call an operator, or replace what they handed in.
"""

from __future__ import annotations

from issuance.types import Reason, Stage


class IssuanceError(Exception):
    """Base of all errors of this package."""


class DecodeError(IssuanceError):
    """Bytes that are not a well-formed permit.

    Attributes:
        stage: the step that refused them.
        reason: the stable token a verdict carries.
    """

    def __init__(self, stage: Stage, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.stage = stage
        self.reason = reason


class ProfileError(IssuanceError):
    """The permit asked for is not one the profile allows: correct the request."""


class KeyStoreError(IssuanceError):
    """A key cannot be read, stored or opened: call an operator."""


class KeyUseError(KeyStoreError):
    """A key is missing, outside its signing period, or meant for another use."""


class JournalError(IssuanceError):
    """The journal cannot be trusted or written: stop issuing and call an operator."""


class JournalLockedError(JournalError):
    """Another process has the journal open."""


class StatusTransitionError(IssuanceError):
    """The status change is not legal: revocation is final."""


class TrustError(IssuanceError):
    """A trust bundle cannot be used. `reason` is a stable token, the message says what to do."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class RollbackError(TrustError):
    """The trust bundle is older than one this verifier has already used."""


class SymbolError(IssuanceError):
    """A QR symbol cannot be drawn, or none can be read from a picture."""


class SourceError(IssuanceError):
    """A file to verify cannot be opened, or is of no kind that is known."""


class PhotoError(IssuanceError):
    """A portrait cannot be used: take or crop it anew."""


class CardError(IssuanceError):
    """A permit card cannot be drawn, or does not read back as what was drawn."""


class UnprintableCharacterError(CardError):
    """The card's fonts lack characters of the text.

    Attributes:
        characters: those characters, in order of appearance, for the operator to look at. The
            message gives only how many there are: names do not belong into logs.
    """

    def __init__(self, characters: str) -> None:
        super().__init__(
            f"{len(characters)} character(s) have no glyph in the card fonts; "
            "print the card with the replacement mark or install a font that has them"
        )
        self.characters = characters


class AuthorityExistsError(IssuanceError):
    """`init_authority` found an authority in the directory and will not overwrite its keys."""
