"""``anju terminal``: provisioning, enrolling and simulating capture terminals."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
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
TerminalDirectory = Annotated[Path, typer.Argument(help="The terminal's credentials.")]
PERSON_HELP = (
    "JSON file with full_name, gender (male, female, other), birth_date, document_number, "
    "household_division_code, residence_division_code, residence_address, arrival_date and, "
    "optionally, ethnicity. Dates are YYYY-MM-DD."
)


@app.command("token")
def new_token(station: str, terminal: str, credentials: Credentials) -> None:
    """Register TERMINAL at STATION and print its one-time provisioning token (administrators).

    A terminal that is registered keeps its certificate until the token is used.
    """
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
    """Exchange a one-time token for this terminal's certificate; its key never leaves it.

    In the directory of a terminal that has a certificate already, the new one takes its place.
    """
    from devices.terminal import provision as provision_terminal

    done = provision_terminal(address, token, directory, main_address)
    typer.echo(f"terminal {done.terminal_id} at station {done.station_id}: {directory}")


@app.command()
def login(
    directory: TerminalDirectory,
    operator: Annotated[str, typer.Argument(help="Operator id.")],
    key: Annotated[
        Path | None,
        typer.Option(help="The operator's key instead of a password: key.pem, or its directory."),
    ] = None,
) -> None:
    """Log OPERATOR in at this terminal; whoever was logged in is logged out.

    What is captured from now on is in the operator's name, also while there is no network.
    """
    from devices.credentials import load_private_key
    from devices.errors import RemoteError
    from devices.terminal import log_in
    from identity.particulars import SHANGHAI

    if key is not None:
        session = log_in(directory, operator, login_key=load_private_key(key))
    else:
        password = typer.prompt("Password", hide_input=True)
        try:
            session = log_in(directory, operator, password=password)
        except RemoteError as error:
            if error.reason != "PASSWORD_CHANGE_REQUIRED":
                raise
            typer.echo("This is a first password; choose one of your own.", err=True)
            fresh = typer.prompt("New password", hide_input=True, confirmation_prompt=True)
            session = log_in(directory, operator, password=password, new_password=fresh)
    until = session.expires_at.astimezone(SHANGHAI).strftime("%Y-%m-%d %H:%M")
    typer.echo(f"{operator} is logged in until {until} (Asia/Shanghai)")


@app.command()
def logout(directory: TerminalDirectory) -> None:
    """End the session at this terminal. What is queued is still sent."""
    from devices.terminal import log_out

    if log_out(directory):
        typer.echo("logged out")
    else:
        typer.echo("logged out here; the register, which is not reached, ends the session itself")


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
        str | None,
        typer.Option(
            help="Send the entry with this key once more; whoever is logged in answers for it."
        ),
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
            outbox.retry(retry)
        if discard is not None:
            outbox.queue.discard(discard)
        show_table(
            ("key", "label", "since", "state", "outcome or reason"),
            entry_rows(outbox.queue.entries()),
        )
        for notice in outbox.notices():
            typer.echo(f"note: {notice}", err=True)


@app.command()
def reprovision(terminal: str, reason: str, credentials: Credentials) -> None:
    """TERMINAL was lost or broke: refuse its certificate at once, print a token for its successor.

    Its sessions end too. For administrators.
    """
    from anju.v1 import terminals_pb2, terminals_pb2_grpc

    with connected(credentials) as connection:
        answer = connection.call(
            terminals_pb2_grpc.TerminalServiceStub(connection.channel).ReprovisionTerminal,
            terminals_pb2.ReprovisionTerminalRequest(
                idempotency_key=new_key(), terminal_id=terminal, reason=reason
            ),
        )
    typer.echo(answer.token)
    typer.echo(
        f"terminal {terminal} is refused from now on; the token is valid until "
        f"{instant(answer.expires_at)} (Asia/Shanghai), for one use",
        err=True,
    )


@app.command("list")
def list_terminals(
    credentials: Credentials,
    expiry_days: Annotated[
        int, typer.Option(min=0, help="Warn of certificates that expire within so many days.")
    ] = 14,
    silent_days: Annotated[
        int, typer.Option(min=1, help="Warn of active terminals silent for so many days.")
    ] = 3,
) -> None:
    """The inventory: state, last contact, certificate, software, sensor (administrators).

    A terminal renews its certificate 30 days before it expires: one that expires soon needs help.
    """
    from anju.v1 import terminals_pb2, terminals_pb2_grpc
    from identity.commands.inventory import COLUMNS, inventory_row, warnings

    with connected(credentials) as connection:
        stub = terminals_pb2_grpc.TerminalServiceStub(connection.channel)
        found = [
            one
            for answer in pages(
                lambda token: connection.call(
                    stub.ListTerminals,
                    terminals_pb2.ListTerminalsRequest(page_token=token),
                )
            )
            for one in answer.terminals
        ]
    show_table(COLUMNS, [inventory_row(one) for one in found])
    limits = timedelta(days=expiry_days), timedelta(days=silent_days)
    for warning in warnings(found, datetime.now(UTC), *limits):
        typer.echo(f"warning: {warning}", err=True)


@app.command()
def revoke(terminal: str, reason: str, credentials: Credentials) -> None:
    """Refuse TERMINAL from its next call on, and end its sessions (administrators)."""
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
