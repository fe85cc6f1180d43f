"""`verify` and `trust-info`: the verifier at a counter, from the command line.

Runs as `python -m issuance verify permit.png --trust bundle.anju` with the base dependencies alone;
`anju verify` is the same function. Exit codes: 0 valid, 1 refused, 2 could not be judged.
"""

from __future__ import annotations

import base64
import enum
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, TypeVar

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from issuance import qr, root_commands
from issuance.checking import SEEN_BEFORE, Checked, Checker, Outcome, report_format, write_report
from issuance.checking import to_dict as checked_to_dict
from issuance.device import Device
from issuance.envelope import MAX_TEXT_CHARS
from issuance.errors import IssuanceError, ProfileError, SourceError
from issuance.page_command import page_command
from issuance.print_command import print_permits
from issuance.profile import GENERAL
from issuance.sources import Entry, Source, from_bytes, from_scanner, open_source
from issuance.trust import TrustStore
from issuance.types import Freshness, TrustAge, Verdict
from issuance.verifier import verify as verify_permit

LABELS: Final[Mapping[str, str]] = {
    "full_name": "姓名 Name",
    "latin_name": "拼音 Pinyin",
    "gender": "性别 Sex",
    "ethnicity": "民族 Ethnicity",
    "birth_date": "出生日期 Born",
    "citizen_id": "公民身份号码 Citizen ID",
    "residence_address": "现住址 Residence",
    "residence_division": "现住址区划 Division",
    "household_division": "户籍区划 Household",
    "household_address": "户籍地址 Household",
    "permit_number": "证件编号 Number",
    "kind": "证件种类 Kind",
    "authority": "签发机关 Authority",
    "issued_on": "签发日期 Issued",
    "valid_from": "有效期起 From",
    "valid_until": "有效期至 Until",
}
_FRESHNESS: Final[Mapping[Freshness, str]] = {
    Freshness.FRESH: "fresh 最新",
    Freshness.STALE: "stale, update soon 较旧，请尽快更新",
    Freshness.TOO_OLD: "too old, update now 已过期，请立即更新",
}


class ExitCode(enum.IntEnum):
    VALID = 0
    REFUSED = 1
    UNUSABLE = 2


T = TypeVar("T")

app = typer.Typer(
    help="Verify residence permits without a network.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


app.command("print")(print_permits)
app.command("root-key")(root_commands.root_key)
app.command("root-show")(root_commands.root_show)
app.command("root-sign")(root_commands.root_sign)
app.command("page")(page_command)


@app.callback()
def _main() -> None:
    """Verify residence permits without a network."""


@app.command()
def verify(
    trust: Annotated[Path, typer.Option(help="trust bundle, e.g. bundle.anju")],
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE...",
            help="pictures (PNG, JPEG), PDFs, files with a symbol's text, folders of these, "
            "rosters (CSV), or - for stdin",
        ),
    ] = None,
    purpose: Annotated[str, typer.Option(help="department that asks; limits what is shown")] = (
        GENERAL
    ),
    scan: Annotated[
        bool,
        typer.Option("--scan", help="verdicts on what a keyboard-wedge scanner types, in turn"),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the verdict as JSON")] = False,
    report: Annotated[
        Path | None, typer.Option(help="write every verdict to a .csv or .json file")
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="column of a roster with the symbol's text or a file name")
    ] = None,
    now: Annotated[str | None, typer.Option(help="ISO 8601 time instead of the clock")] = None,
    root: Annotated[
        Path | None, typer.Option(help="root metadata of the authority, from a trusted source")
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(envvar="ANJU_VERIFIER_STATE", help="where this device remembers what it saw"),
    ] = None,
) -> None:
    """Do permits stand? Exit code 0: all valid, 1: some refused, 2: some could not be judged."""
    _tolerate_any_terminal()
    if scan is bool(sources):
        raise typer.BadParameter("name a source, or use --scan")
    device = _device(trust, root, state)
    instant = _or_exit(lambda: _instant(now))
    if scan:
        store = _or_exit(lambda: _prepare(device, purpose))
        clock = (lambda: instant) if now else (lambda: datetime.now(UTC))
        raise typer.Exit(_scan(device, store, clock, purpose, as_json=as_json))
    # Before the trust data is touched: what cannot be read needs none.
    found = _or_exit(lambda: _find(sources or [], column, report))
    checker = Checker(_or_exit(lambda: _prepare(device, purpose)), instant, purpose)
    if isinstance(found, Entry):
        raise typer.Exit(_judge_one(found, checker, as_json=as_json))
    raise typer.Exit(_or_exit(lambda: _judge_many(found, checker, report, as_json=as_json)))


@app.command()
def trust_info(
    trust: Annotated[Path, typer.Argument(help="trust bundle, e.g. bundle.anju")],
    now: Annotated[str | None, typer.Option(help="ISO 8601 time instead of the clock")] = None,
) -> None:
    """Who published a trust bundle, how old is it, and what does it hold?"""
    _tolerate_any_terminal()
    store, instant = _or_exit(lambda: (Device(trust).load(), _instant(now)))
    _describe(store, instant)


@app.command()
def trust_import(
    source: Annotated[Path, typer.Argument(help="bundle or delta, e.g. on a stick")],
    trust: Annotated[Path, typer.Option(help="where this device keeps its bundle")],
    now: Annotated[str | None, typer.Option(help="ISO 8601 time instead of the clock")] = None,
    root: Annotated[
        Path | None, typer.Option(help="root metadata of the authority, from a trusted source")
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(envvar="ANJU_VERIFIER_STATE", help="where this device remembers what it saw"),
    ] = None,
) -> None:
    """Check a trust bundle or a delta, and keep it. Exit code 2: refused, the old one stays."""
    _tolerate_any_terminal()
    instant = _or_exit(lambda: _instant(now))
    store = _or_exit(lambda: _device(trust, root, state).take(source))
    _ask_to_compare(store)
    _describe(store, instant)


def _describe(store: TrustStore, instant: datetime) -> None:
    freshness = (
        _FRESHNESS[store.age(instant).freshness]
        if store.clock_is_plausible(instant)
        else "but this device's clock is behind it 本机时间有误"
    )
    rows = {
        "issuer": store.rules.issuer,
        "authority": store.rules.authority,
        "root fingerprint": store.root_fingerprint,
        "version": str(store.version),
        "published": f"{store.published_at:%Y-%m-%d %H:%M} UTC, {freshness}",
        "usable until": f"{store.expires_at:%Y-%m-%d %H:%M} UTC",
        "keys": str(len(store.keys)),
        "status lists": str(len(store.lists)),
    }
    for name, text in rows.items():
        typer.echo(f"{name:<17} {text}")


def to_dict(verdict: Verdict) -> dict[str, object]:
    """The verdict as JSON values; the keys and tokens are stable."""
    age = verdict.trust
    return {
        "valid": verdict.valid,
        "reason": verdict.reason.value,
        "stage": verdict.stage and verdict.stage.value,
        "message_en": verdict.message_en,
        "message_zh": verdict.message_zh,
        "shown": dict(verdict.shown),
        "photo": verdict.photo
        and {
            "media_type": verdict.photo.media_type,
            "base64": base64.b64encode(verdict.photo.data).decode(),
        },
        "warnings": list(verdict.warnings),
        "trust": age
        and {
            "freshness": age.freshness.value,
            "published_at": age.published_at.isoformat(),
            "age_s": age.age_s,
        },
    }


def main() -> None:
    """Entry point of `python -m issuance`: whatever happens, one line and an exit code."""
    try:
        app()
    except IssuanceError as error:
        typer.echo(f"anju: {error}", err=True)
        sys.exit(ExitCode.UNUSABLE)
    except OSError as error:
        typer.echo(f"anju: {_os_text(error)}", err=True)
        sys.exit(ExitCode.UNUSABLE)
    except Exception as error:
        typer.echo(f"anju: internal error ({type(error).__name__})", err=True)
        sys.exit(ExitCode.UNUSABLE)


def _tolerate_any_terminal() -> None:
    """A terminal without Chinese shows question marks; the verdict and exit code stay right."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _or_exit(work: Callable[[], T]) -> T:
    """The result of `work`, or one line on stderr and exit code 2."""
    try:
        return work()
    except (IssuanceError, OSError, ValueError) as error:
        text = str(error) if not isinstance(error, OSError) else _os_text(error)
        typer.echo(f"anju: {text}", err=True)
        raise typer.Exit(ExitCode.UNUSABLE) from None


def _os_text(error: OSError) -> str:
    return f"cannot use {error.filename}: {error.strerror}"


def _prepare(device: Device, purpose: str) -> TrustStore:
    store = device.load()
    if purpose not in store.rules.disclosure:
        raise ProfileError(
            f"unknown purpose {purpose}; known are {', '.join(sorted(store.rules.disclosure))}"
        )
    _remember(store, device)
    return store


def _find(names: Sequence[str], column: str | None, report: Path | None) -> Entry | list[Source]:
    """The entry of a source that is one permit, or the collections to go through."""
    if report is not None:
        report_format(report)
    if list(names) == ["-"]:
        return from_bytes(sys.stdin.buffer.read(qr.MAX_PICTURE_BYTES + 1), "stdin")
    sources = [open_source(Path(name), column) for name in names]
    if len(sources) > 1 or report is not None or sources[0].many:
        return sources
    entries = [entry for _, entry in sources[0].entries()]
    texts = tuple(text for entry in entries for text in entry.texts)
    if not texts:
        raise SourceError(f"{names[0]}: {entries[0].problem}")
    return Entry(entries[0].source, texts=texts)


def _judge_one(entry: Entry, checker: Checker, *, as_json: bool) -> ExitCode:
    verdict = checker.verdicts(entry.texts)[0]
    if as_json:
        _print_json(to_dict(verdict))
    else:
        _print(verdict)
    return ExitCode.VALID if verdict.valid else ExitCode.REFUSED


def _judge_many(
    sources: Sequence[Source], checker: Checker, report: Path | None, *, as_json: bool
) -> ExitCode:
    """Verdicts on everything, with progress where somebody watches; those not valid are listed."""
    results: list[Checked] = []
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task("verifying 核验中", total=sum(source.steps for source in sources))
        done = 0
        for source in sources:
            for step, entry in source.entries():
                results += checker.check(entry)
                progress.update(task, completed=done + step)
            done += source.steps
    if report is not None:
        write_report(report, results)
    if as_json:
        _print_json([checked_to_dict(one) for one in results])
    else:
        _print_many(results, checker)
    if checker.counts[Outcome.REFUSED]:
        return ExitCode.REFUSED
    unjudged = checker.counts[Outcome.NOT_JUDGED] or not results
    return ExitCode.UNUSABLE if unjudged else ExitCode.VALID


def _print_many(results: Sequence[Checked], checker: Checker) -> None:
    console = Console(soft_wrap=True, highlight=False)
    for one in results:
        if one.outcome is not Outcome.VALID:
            style = "bold red" if one.outcome is Outcome.REFUSED else "bold yellow"
            text = one.verdict.message_zh if one.verdict else str(one.entry.problem)
            console.print(Text(f"{one.where}: "), Text(one.reason, style=style), Text(text))
        elif one.seen_before:
            note = f"{SEEN_BEFORE} the same permit as 与此重复: {one.seen_before}"
            console.print(Text(f"{one.where}: "), Text(note, style="bold yellow"))
    counts = checker.counts
    console.print(
        Text(
            f"{counts[Outcome.VALID]} valid 有效, {counts[Outcome.REFUSED]} refused 不予采信, "
            f"{counts[Outcome.NOT_JUDGED]} not judged 未能核验"
        )
    )
    if checker.repeated:
        console.print(Text(f"{checker.repeated} repeated 重复"))
    _print_age(checker.trust.age(checker.now))


def _scan(
    device: Device,
    store: TrustStore,
    clock: Callable[[], datetime],
    purpose: str,
    *,
    as_json: bool,
) -> ExitCode:
    """A verdict for every line until the input ends; a newer bundle is taken up in between."""
    stamp = _stamp(device.trust)
    if sys.stdin.isatty():
        typer.echo("scan a permit, or press Ctrl-D to end 请扫描证件，按 Ctrl-D 结束", err=True)
    judged, all_valid = 0, True
    # One line more than a symbol holds is refused as too large, and never fills the memory.
    while line := sys.stdin.readline(4 * MAX_TEXT_CHARS):
        if not line.strip("\r\n"):
            continue
        if _stamp(device.trust) != stamp:
            stamp = _stamp(device.trust)
            try:
                store = _prepare(device, purpose)
            except (IssuanceError, OSError, ValueError) as error:
                typer.echo(f"anju: the new trust data is not used: {error}", err=True)
        verdict = verify_permit(from_scanner(line), store, clock(), purpose=purpose)
        judged += 1
        all_valid = all_valid and verdict.valid
        if as_json:
            typer.echo(json.dumps(to_dict(verdict), ensure_ascii=_ascii_only()))
        else:
            _print(verdict)
            typer.echo()
        sys.stdout.flush()
    if not judged:
        return ExitCode.UNUSABLE
    return ExitCode.VALID if all_valid else ExitCode.REFUSED


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _ascii_only() -> bool:
    return (sys.stdout.encoding or "ascii").lower().replace("-", "") != "utf8"


def _print_json(document: object) -> None:
    typer.echo(json.dumps(document, ensure_ascii=_ascii_only(), indent=2))


def _device(trust: Path, root: Path | None, state: Path | None) -> Device:
    return Device(trust, state or Path(typer.get_app_dir("anju")) / "verifier-state.json", root)


def _ask_to_compare(store: TrustStore) -> None:
    if not store.anchored:
        typer.echo(
            "anju: first use of this authority; compare its root fingerprint with the one it "
            f"made known: {store.root_fingerprint}",
            err=True,
        )


def _remember(store: TrustStore, device: Device) -> None:
    _ask_to_compare(store)
    try:
        device.remember(store)
    except OSError as error:
        # Refusing to verify would hurt the person at the counter more than forgetting does.
        typer.echo(f"anju: cannot remember this bundle: {error.strerror}", err=True)


def _instant(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC)
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an ISO 8601 time") from None
    if instant.utcoffset() is None:
        raise ValueError(f"{text!r} lacks a time zone, e.g. +08:00")
    return instant


def _print(verdict: Verdict) -> None:
    console = Console(soft_wrap=True, highlight=False)
    if verdict.valid:
        console.print(Text("VALID 有效", style="bold green"))
    else:
        where = f" ({verdict.stage}: {verdict.reason})"
        console.print(Text("REFUSED 不予采信", style="bold red"), Text(where))
    console.print(Text(verdict.message_zh))
    console.print(Text(verdict.message_en))
    # Not a table: in a narrow window that would cut an address short.
    column = max((cell_len(LABELS[name]) for name in verdict.shown), default=0)
    for name, text in verdict.shown.items():
        label = LABELS[name]
        console.print(Text(f"{label}{' ' * (column + 2 - cell_len(label))}{text}"))
    if verdict.trust is not None:
        _print_age(verdict.trust)


def _print_age(age: TrustAge) -> None:
    style = "" if age.freshness is Freshness.FRESH else "yellow"
    line = f"trust data 信任数据: {max(age.age_s, 0) / 3600:.0f} h, {_FRESHNESS[age.freshness]}"
    Console(soft_wrap=True, highlight=False).print(Text(line, style=style))
