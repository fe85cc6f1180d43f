"""``anju terminal enrol``, ``submit``, ``extract`` and ``inspect``: from files of fingers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from identity.commands.session import show_table
from identity.errors import InvalidRequestError

if TYPE_CHECKING:
    from devices.terminal import MissingFinger, Sample
    from devices.terminal.check import Capture, Examiner, Finger
    from devices.terminal.feedback import Finding
    from devices.terminal.submission import Applicant

FORMAT_HELP = (
    "What the records are written in: iso-19794-2-2005, iso-19794-2-2011, ansi-incits-378-2004 or "
    "ansi-incits-378-2009."
)
PERSON_HELP = (
    "JSON file with full_name, gender (male, female, other), birth_date, document_number, "
    "household_division_code, residence_division_code, residence_address, arrival_date and, "
    "optionally, ethnicity, portrait (a file beside it) and missing_fingers. Dates are YYYY-MM-DD."
)
MISSING_HELP = (
    "A finger that was asked for and could not be captured, e.g. 7=bandaged: its position code "
    "(ISO/IEC 19794-2) and amputated, bandaged, worn, unreachable, declined or equipment."
)

TerminalDirectory = Annotated[Path, typer.Argument(help="The terminal's credentials.")]
PersonFile = Annotated[Path, typer.Argument(help=PERSON_HELP)]
Fingers = Annotated[
    list[Path] | None, typer.Argument(help="Finger minutiae records or images, one finger each.")
]
FormatOption = Annotated[str, typer.Option("--format", help=FORMAT_HELP)]
PpiOption = Annotated[
    int | None,
    typer.Option(help="Resolution of images: 500 or 1000; what the file says if left out."),
]
MissingOption = Annotated[list[str] | None, typer.Option("--missing", help=MISSING_HELP)]
PortraitOption = Annotated[
    Path | None, typer.Option(help="PNG or JPEG, upright, a little taller than wide.")
]
AgainOption = Annotated[
    list[Path] | None,
    typer.Option(help="A second capture of each finger, in their order; compared, not sent."),
]
AcceptOption = Annotated[
    bool, typer.Option("--accept-findings", help="Insist on captures that are doubtful.")
]
LanguageOption = Annotated[
    str, typer.Option(envvar="ANJU_LANGUAGE", help="Of what is said of captures: en or zh.")
]


def enrol(
    directory: TerminalDirectory,
    person: PersonFile,
    samples: Fingers = None,
    permit: Annotated[bool, typer.Option(help="Ask for a permit as well.")] = True,
    idempotency_key: Annotated[
        str | None,
        typer.Option(help="The key of an earlier attempt whose answer was lost."),
    ] = None,
    sample_format: FormatOption = "iso-19794-2-2005",
    ppi: PpiOption = None,
    missing: MissingOption = None,
    portrait: PortraitOption = None,
) -> None:
    """Submit one application and print its outcome as JSON."""
    from devices.terminal import TerminalClient

    applicant, gone, face = _applicant(person, missing, portrait)
    captures = _captures(samples or [], [], sample_format, ppi)
    with TerminalClient(directory) as terminal:
        answer = terminal.enrol(
            applicant.person,
            _samples_of(captures),
            permit_requested=permit,
            idempotency_key=idempotency_key,
            portrait=face,
            missing_fingers=gone,
        )
    outcome: dict[str, Any] = {
        "application_id": answer.application_id,
        "state": answer.state.name,
        "registrant_id": answer.registrant_id,
        "case_id": answer.case_id,
        "late": answer.late,
    }
    if answer.permit is not None:
        outcome["permit_number"] = answer.permit.permit_number
        outcome["permit_expires_at"] = answer.permit.expires_at.isoformat()
    typer.echo(json.dumps(outcome, ensure_ascii=False, indent=2))


def submit(
    directory: TerminalDirectory,
    person: PersonFile,
    samples: Fingers = None,
    label: Annotated[
        str, typer.Option(help="What lists call it, e.g. a ticket number; no name.")
    ] = "submission",
    permit: Annotated[bool, typer.Option(help="Ask for a permit as well.")] = True,
    wait_s: Annotated[
        float, typer.Option("--wait", min=0, help="How long to try sending it now, in seconds.")
    ] = 15.0,
    sample_format: FormatOption = "iso-19794-2-2005",
    ppi: PpiOption = None,
    missing: MissingOption = None,
    portrait: PortraitOption = None,
    again: AgainOption = None,
    accept_findings: AcceptOption = False,
    language: LanguageOption = "en",
) -> None:
    """Keep one application on this terminal until the register has it, and try to send it.

    Looks at the captures first: what is doubtful is not kept, unless it is insisted on.
    Ends well once it is kept: it is sent now, by `anju terminal run`, or by the next `submit`.
    The same files and label handed in again are the same application.
    """
    from devices.terminal import Outbox
    from devices.terminal.check import require_undoubted
    from identity.capture_check import examiner
    from identity.terminal_work import entry_line, send_within

    _require_language(language)
    applicant, gone, face = _applicant(person, missing, portrait)
    captures = _captures(samples or [], again or [], sample_format, ppi)
    found = _findings(captures, examiner(), language)
    if not accept_findings:
        require_undoubted(found)
    records = _samples_of(captures)
    with Outbox(directory) as outbox:
        # The same files are the same application, also when this command is repeated.
        key = outbox.queue.key_for(
            label.encode(),
            person.read_bytes(),
            bytes([permit]),
            repr(gone).encode(),
            face,
            *(one.record for one in records),
        )
        outbox.submit(
            applicant.person,
            records,
            label,
            permit,
            idempotency_key=key,
            portrait=face,
            missing_fingers=gone,
        )
        typer.echo(entry_line(send_within(outbox, key, wait_s)))
        for notice in outbox.notices():
            typer.echo(f"note: {notice}", err=True)


def extract(
    images: Annotated[list[Path], typer.Argument(help="PNG, BMP or TIFF, one finger each.")],
    out: Annotated[
        Path | None, typer.Option(help="A folder for the records; beside the images if left out.")
    ] = None,
    ppi: PpiOption = None,
    position: Annotated[
        int, typer.Option(min=0, max=10, help="Which finger, ISO/IEC 19794-2; 0 is unknown.")
    ] = 0,
) -> None:
    """Turn fingerprint images into ISO/IEC 19794-2:2005 records, NAME.iso, and print their quality.

    Needs the extra [extract]; nothing is sent anywhere.
    """
    from devices.errors import ImageInvalidError
    from devices.terminal.extract import extract as extracted
    from devices.terminal.image import read_image

    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    rows = []
    for path in images:
        try:
            found = extracted(read_image(path.read_bytes(), ppi), position)
        except ImageInvalidError as error:
            raise ImageInvalidError(f"{path}: {error}") from error
        if found.advice:
            typer.echo(f"{path}: quality {found.quality}: {found.advice}", err=True)
        target = (path.parent if out is None else out) / f"{path.stem}.iso"
        target.write_bytes(found.record)
        rows.append((str(target), str(found.minutiae), str(found.quality)))
    show_table(("record", "minutiae", "quality"), rows)


def inspect(
    samples: Annotated[
        list[Path], typer.Argument(help="Finger minutiae records or images, one finger each.")
    ],
    again: AgainOption = None,
    sample_format: FormatOption = "iso-19794-2-2005",
    ppi: PpiOption = None,
    language: LanguageOption = "en",
) -> None:
    """Look at captures as `submit` would: quality, two captures that differ, one finger twice.

    Exit code 1 if anything is doubtful. Nothing is sent anywhere. Comparing needs the extra
    [recheck].
    """
    from devices.terminal.check import require_undoubted
    from devices.terminal.feedback import finger_name
    from identity.capture_check import examiner

    _require_language(language)
    captures = _captures(samples, again or [], sample_format, ppi)
    examining = examiner()
    rows = []
    for path, capture in zip(samples, captures, strict=True):
        look = None if examining is None else examining.look(capture.finger.sample)
        position = capture.finger.sample.position if look is None else look.position
        quality = capture.finger.quality
        rows.append(
            (
                str(path),
                finger_name(position, language),
                "-" if look is None else str(look.minutiae),
                "-" if look is None else f"{look.area_mm2:.0f}",
                "-" if quality < 0 else str(quality),
            )
        )
    show_table(("file", "finger", "minutiae", "area mm2", "quality"), rows)
    require_undoubted(_findings(captures, examining, language))


def _applicant(
    person: Path, missing: Sequence[str] | None, portrait: Path | None
) -> tuple[Applicant, tuple[MissingFinger, ...], bytes]:
    """Who applies, the fingers they miss, and their portrait: of the file, or the options."""
    from devices.terminal.submission import missing_finger, read_applicant

    applicant = read_applicant(person.read_bytes())
    gone = (*applicant.missing_fingers, *(missing_finger(one) for one in missing or ()))
    if portrait is None and applicant.portrait:
        portrait = person.parent / applicant.portrait
    return applicant, gone, b"" if portrait is None else portrait.read_bytes()


def _captures(
    paths: Sequence[Path], again: Sequence[Path], sample_format: str, ppi: int | None
) -> list[Capture]:
    """The fingers of the files; images are extracted here.

    Raises:
        InvalidRequestError: there is no such format, or there are too many files.
        DevicesError: an image cannot be read.
    """
    from devices.terminal.check import Capture
    from devices.terminal.submission import MAX_FINGERS

    if len(paths) > MAX_FINGERS or len(again) > len(paths):
        raise InvalidRequestError(
            "SAMPLES_MISSING", f"give 1 to {MAX_FINGERS} fingers, and each once again at most"
        )
    first = [_finger(path, sample_format, ppi) for path in paths]
    second = [_finger(path, sample_format, ppi) for path in again]
    return [
        Capture(finger, second[number] if number < len(second) else None)
        for number, finger in enumerate(first)
    ]


def _finger(path: Path, sample_format: str, ppi: int | None) -> Finger:
    from devices.errors import ImageInvalidError
    from devices.terminal import SampleFormat
    from devices.terminal.check import finger_from

    known = {one.label: one for one in SampleFormat}
    if sample_format not in known:
        raise InvalidRequestError(
            "FORMAT_UNSPECIFIED", f"the format must be one of {', '.join(known)}"
        )
    content = path.read_bytes()
    record = known[sample_format] if content.startswith(b"FMR") else None
    try:
        return finger_from(content, 0, record, ppi)
    except ImageInvalidError as error:
        raise ImageInvalidError(f"{path}: {error}") from error


def _samples_of(captures: Sequence[Capture]) -> list[Sample]:
    return [capture.finger.sample for capture in captures]


def _findings(
    captures: Sequence[Capture], examining: Examiner | None, language: str
) -> list[Finding]:
    """What is to be put right, which is also said on stderr."""
    from devices.terminal.check import findings

    found = findings(captures, examining)
    for one in found:
        if not one.doubtful or language != "en":
            typer.echo(one.text(language), err=True)
    return found


def _require_language(language: str) -> None:
    from devices.terminal.feedback import LANGUAGES

    if language not in LANGUAGES:
        raise InvalidRequestError(
            "LANGUAGE_UNKNOWN", f"the language must be one of {', '.join(LANGUAGES)}"
        )
