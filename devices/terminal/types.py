"""What a terminal says and hears, in plain values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from enum import IntEnum


class Gender(IntEnum):
    """Numbers as in anju.v1 and Claim 169."""

    MALE = 1
    FEMALE = 2
    OTHER = 3


class ApplicationState(IntEnum):
    """Numbers as in anju.v1; an answer with a number from the future reads as UNSPECIFIED."""

    UNSPECIFIED = 0
    ACCEPTED = 1
    ENROLLED = 2
    RECOGNISED = 3
    IN_ADJUDICATION = 4
    REJECTED = 5


@dataclass(frozen=True, repr=False)
class Person:
    """Who applies, and where they live now. It has no ``repr``, so it cannot slip into a log.

    Attributes:
        household_division_code, residence_division_code: GB/T 2260, 6 digits.
        ethnicity: optional.
        birth_date, arrival_date: calendar dates, Asia/Shanghai.
    """

    full_name: str
    gender: Gender
    birth_date: date
    document_number: str
    household_division_code: str
    residence_division_code: str
    residence_address: str
    arrival_date: date
    ethnicity: str = ""


class SampleFormat(IntEnum):
    """What a finger minutiae record is written in. Numbers as in anju.v1."""

    ISO_19794_2_2005 = 1
    ISO_19794_2_2011 = 2
    ANSI_INCITS_378_2004 = 3
    ANSI_INCITS_378_2009 = 4

    @property
    def label(self) -> str:
        """For files and commands, e.g. ``iso-19794-2-2005``."""
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True, repr=False)
class Sample:
    """One captured finger.

    Attributes:
        record: finger minutiae record with one view, at most 65,536 bytes.
        position: finger position code of ISO/IEC 19794-2 table 5; 0 takes it from the record.
        format: of the record.
    """

    record: bytes
    position: int = 0
    format: SampleFormat = SampleFormat.ISO_19794_2_2005


class MissingReason(IntEnum):
    """Why a finger that was asked for was not captured. Numbers as in anju.v1, which explains them.

    Never a ground for refusing anybody: it tells a finger that cannot be captured from one that was
    forgotten.
    """

    AMPUTATED = 1
    BANDAGED = 2
    WORN = 3
    UNREACHABLE = 4
    DECLINED = 5
    EQUIPMENT = 6

    @property
    def label(self) -> str:
        """For files and commands."""
        return self.name.lower()


@dataclass(frozen=True)
class MissingFinger:
    """``position``: code of ISO/IEC 19794-2 table 5, 1 to 10."""

    position: int
    reason: MissingReason


@dataclass(frozen=True, repr=False)
class FingerFile:
    """The image of a finger for the register to extract, where the city allows that.

    Attributes:
        content: PNG, BMP or TIFF file, at most 8 MiB.
        resolution_ppi: 500 or 1000; 0 for what the file says.
    """

    content: bytes
    position: int = 0
    resolution_ppi: int = 0


@dataclass(frozen=True)
class Permit:
    """A permit as issued; ``qr_text`` is what the QR symbol holds."""

    permit_number: str
    expires_at: datetime
    qr_text: str


@dataclass(frozen=True)
class Application:
    """How an application stands.

    Attributes:
        registrant_id: once enrolled or recognised, else empty.
        case_id: while and after people decide, else empty.
        late: registered more than 3 days after arrival; without consequence here.
    """

    application_id: str
    state: ApplicationState
    registrant_id: str
    case_id: str
    permit: Permit | None
    late: bool
