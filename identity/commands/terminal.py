"""``anju terminal``: provisioning, enrolling and simulating capture terminals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from identity.commands.session import Credentials, connected, instant, new_key, pages, show_table
from identity.commands.simulate import simulate
from identity.errors import InvalidRequestError

if TYPE_CHECKING:
    from devices.terminal import Sample
    from devices.terminal.extract import ExtractedFinger

app = typer.Typer(no_args_is_help=True, help="Capture terminals: provision, run, enrol, simulate.")
app.command()(simulate)

FORMAT_HELP = (
    "What the records are written in: iso-19794-2-2005, iso-19794-2-2011, ansi-incits-378-2004 or "
    "ansi-incits-378-2009."
)
FormatOption = Annotated[str, typer.Option("--format", help=FORMAT_HELP)]
PpiOption = Annotated[
    int | None,
    typer.Option(help="Resolution of images: 500 or 1000; what the file says if left out."),
]
PERSON_HELP = (
    "JSON file with full_name, gender (male, female, other), birth_date, document_number, "
    "household_division_code, residence_division_code, residence_address, arrival_date and, "
    "optionally, ethnicity. Dates are YYYY-MM-DD."
)


@app.command("token")
def new_token(station: str, terminal: str, credentials: Credentials) -> None:
    """Register TERMINAL at STATION and print its one-time provisioning token (operators)."""
    from anju.v1 import terminals_pb2, terminals_pb2_grpc

    with connected(credentials) as connection:
        answer = connection.call(
            terminals_pb2_grpc.TerminalServiceStub(connection.channel).CreateProvisioningToken,
            terminals_pb2.CreateProvisioningTokenRequest(
                idempotency_key=new_key(), station_id=station, terminal_id=terminal
            ),
        )
    typer.echo(answer.token)
    typer.echo(f"valid until {instant(answer.expires_at)} (Asia/Shanghai), for one use", err=True)


@app.command()
def provision(
    address: Annotated[str, typer.Argument(help="host:port of the provisioning port.")],
    directory: Annotated[Path, typer.Argument(help="Where this terminal keeps its credentials.")],
    token: Annotated[
        str,
        typer.Option(
            prompt="Provisioning token",
            help="Asked for if left out, which keeps it out of the shell's history.",
        ),
    ],
    main_address: Annotated[
        str | None, typer.Option(help="host:port of the main port; one port lower by default.")
    ] = None,
) -> None:
    """Exchange a one-time token for this terminal's certificate; its key never leaves it."""
    from devices.terminal import provision as provision_terminal

    done = provision_terminal(address, token, directory, main_address)
    typer.echo(f"terminal {done.terminal_id} at station {done.station_id}: {directory}")


@app.command()
def enrol(
    directory: Annotated[Path, typer.Argument(help="The terminal's credentials.")],
    person: Annotated[Path, typer.Argument(help=PERSON_HELP)],
    samples: Annotated[
        list[Path], typer.Argument(help="Finger minutiae records or images, one finger each.")
    ],
    permit: Annotated[bool, typer.Option(help="Ask for a permit as well.")] = True,
    idempotency_key: Annotated[
        str | None,
        typer.Option(help="The key of an earlier attempt whose answer was lost."),
    ] = None,
    sample_format: FormatOption = "iso-19794-2-2005",
    ppi: PpiOption = None,
) -> None:
    """Submit one application and print its outcome as JSON."""
    from devices.terminal import TerminalClient
    from devices.terminal.submission import read_person

    applicant = read_person(person.read_bytes())
    records = _samples(samples, sample_format, ppi)
    with TerminalClient(directory) as terminal:
        answer = terminal.enrol(
            applicant, records, permit_requested=permit, idempotency_key=idempotency_key
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


@app.command()
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
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    rows = []
    for path in images:
        found = _extracted(path, path.read_bytes(), ppi, position)
        target = (path.parent if out is None else out) / f"{path.stem}.iso"
        target.write_bytes(found.record)
        rows.append((str(target), str(found.minutiae), str(found.quality)))
    show_table(("record", "minutiae", "quality"), rows)


@app.command()
def submit(
    directory: Annotated[Path, typer.Argument(help="The terminal's credentials.")],
    person: Annotated[Path, typer.Argument(help=PERSON_HELP)],
    samples: Annotated[
        list[Path], typer.Argument(help="Finger minutiae records or images, one finger each.")
    ],
    label: Annotated[
        str, typer.Option(help="What lists call it, e.g. a ticket number; no name.")
    ] = "submission",
    permit: Annotated[bool, typer.Option(help="Ask for a permit as well.")] = True,
    wait_s: Annotated[
        float, typer.Option("--wait", min=0, help="How long to try sending it now, in seconds.")
    ] = 15.0,
    sample_format: FormatOption = "iso-19794-2-2005",
    ppi: PpiOption = None,
) -> None:
    """Keep one application on this terminal until the register has it, and try to send it.

    Ends well once it is kept: it is sent now, by `anju terminal run`, or by the next `submit`.
    The same files and label handed in again are the same application.
    """
    from devices.terminal import Outbox
    from devices.terminal.submission import read_person
    from identity.terminal_work import entry_line, send_within

    stated = person.read_bytes()
    applicant = read_person(stated)
    records = _samples(samples, sample_format, ppi)
    with Outbox(directory) as outbox:
        # The same files are the same application, also when this command is repeated.
        key = outbox.queue.key_for(
            label.encode(), stated, bytes([permit]), *(one.record for one in records)
        )
        outbox.submit(applicant, records, label, permit, idempotency_key=key)
        typer.echo(entry_line(send_within(outbox, key, wait_s)))
        for notice in outbox.notices():
            typer.echo(f"note: {notice}", err=True)


@app.command("run")
def run_terminal(
    directory: Annotated[Path, typer.Argument(help="The terminal's credentials.")],
    spool: Annotated[
        Path | None, typer.Option(help="A folder that capture software drops submissions into.")
    ] = None,
    offline_limit: Annotated[
        int, typer.Option(min=1, help="Days without contact after which nothing is taken.")
    ] = 7,
    offline_warning: Annotated[
        int, typer.Option(min=1, help="Days without contact after which to warn.")
    ] = 5,
    max_entries: Annotated[int, typer.Option(min=1, help="Submissions that may wait.")] = 2_000,
    max_mib: Annotated[int, typer.Option(min=1, help="MiB that may wait.")] = 512,
) -> None:
    """Take what capture software drops, keep it, and send it whenever the register is there.

    Renews the certificate before it expires. Runs until SIGTERM or Ctrl-C; may be killed at any
    time without losing anything.
    """
    from identity.terminal_work import run

    run(directory, spool, offline_limit, offline_warning, max_entries, max_mib)


@app.command("queue")
def show_queue(
    directory: Annotated[Path, typer.Argument(help="The terminal's credentials.")],
    retry: Annotated[
        str | None, typer.Option(help="Send the entry with this key once more, as it is.")
    ] = None,
    discard: Annotated[
        str | None, typer.Option(help="Forget the entry with this key, which needs attention.")
    ] = None,
) -> None:
    """What waits on this terminal, what was sent, and what needs attention."""
    from devices.terminal import Outbox
    from identity.terminal_work import entry_rows

    with Outbox(directory) as outbox:
        if retry is not None:
            outbox.queue.retry(retry)
        if discard is not None:
            outbox.queue.discard(discard)
        show_table(
            ("key", "label", "since", "state", "outcome or reason"),
            entry_rows(outbox.queue.entries()),
        )
        for notice in outbox.notices():
            typer.echo(f"note: {notice}", err=True)


@app.command("list")
def list_terminals(credentials: Credentials) -> None:
    """All terminals with their state, certificate and last contact (operators)."""
    from anju.v1 import terminals_pb2, terminals_pb2_grpc

    with connected(credentials) as connection:
        stub = terminals_pb2_grpc.TerminalServiceStub(connection.channel)
        rows = [
            (
                one.terminal_id,
                one.station_id,
                terminals_pb2.TerminalState.Name(one.state).removeprefix("TERMINAL_STATE_"),
                instant(one.certificate_not_after),
                instant(one.last_contact),
            )
            for answer in pages(
                lambda token: connection.call(
                    stub.ListTerminals,
                    terminals_pb2.ListTerminalsRequest(page_token=token),
                )
            )
            for one in answer.terminals
        ]
    show_table(("terminal", "station", "state", "certificate until", "last contact"), rows)


@app.command()
def revoke(terminal: str, reason: str, credentials: Credentials) -> None:
    """Refuse TERMINAL from its next call on (operators)."""
    from anju.v1 import terminals_pb2, terminals_pb2_grpc

    with connected(credentials) as connection:
        connection.call(
            terminals_pb2_grpc.TerminalServiceStub(connection.channel).RevokeTerminal,
            terminals_pb2.RevokeTerminalRequest(
                idempotency_key=new_key(), terminal_id=terminal, reason=reason
            ),
        )
    typer.echo(f"terminal {terminal} is revoked")


def _samples(paths: list[Path], sample_format: str, ppi: int | None) -> list[Sample]:
    """The fingers of the files; images are extracted here.

    Raises:
        InvalidRequestError: there is no such format.
        DevicesError: an image cannot be read.
    """
    from devices.terminal import Sample, SampleFormat
    from devices.terminal.submission import MAX_FINGERS

    known = {one.label: one for one in SampleFormat}
    if sample_format not in known:
        raise InvalidRequestError(
            "FORMAT_UNSPECIFIED", f"the format must be one of {', '.join(known)}"
        )
    if len(paths) > MAX_FINGERS:
        raise InvalidRequestError("SAMPLES_MISSING", f"give 1 to {MAX_FINGERS} fingers")
    samples = []
    for path in paths:
        content = path.read_bytes()
        if content.startswith(b"FMR"):
            samples.append(Sample(content, format=known[sample_format]))
        else:
            samples.append(Sample(_extracted(path, content, ppi, 0).record))
    return samples


def _extracted(path: Path, content: bytes, ppi: int | None, position: int) -> ExtractedFinger:
    """The finger of an image file; what is wrong with it goes to stderr."""
    from devices.errors import ImageInvalidError
    from devices.terminal.extract import extract
    from devices.terminal.image import read_image

    try:
        found = extract(read_image(content, ppi), position)
    except ImageInvalidError as error:
        raise ImageInvalidError(f"{path}: {error}") from error
    if found.advice:
        typer.echo(f"{path}: quality {found.quality}: {found.advice}", err=True)
    return found
