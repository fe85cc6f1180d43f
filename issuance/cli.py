"""`verify` and `trust-info`: the verifier at a counter, from the command line.

Runs as `python -m issuance verify permit.png --trust bundle.anju` with the base dependencies alone;
`anju verify` is the same function. Exit codes: 0 valid, 1 refused, 2 could not be judged.
"""

from __future__ import annotations

import enum
import io
import json
import sys
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, TypeVar

import typer
from PIL import Image
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from issuance import qr, root_commands
from issuance.device import Device, read
from issuance.envelope import MAX_TEXT_CHARS
from issuance.errors import IssuanceError, ProfileError
from issuance.profile import GENERAL
from issuance.trust import TrustStore
from issuance.types import Freshness, Reason, Verdict
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


app.command("root-key")(root_commands.root_key)
app.command("root-show")(root_commands.root_show)
app.command("root-sign")(root_commands.root_sign)


@app.callback()
def _main() -> None:
    """Verify residence permits without a network."""


@app.command()
def verify(
    source: Annotated[
        str, typer.Argument(help="PNG or JPEG picture, file with the symbol's text, or - for stdin")
    ],
    trust: Annotated[Path, typer.Option(help="trust bundle, e.g. bundle.anju")],
    purpose: Annotated[str, typer.Option(help="department that asks; limits what is shown")] = (
        GENERAL
    ),
    as_json: Annotated[bool, typer.Option("--json", help="print the verdict as JSON")] = False,
    now: Annotated[str | None, typer.Option(help="ISO 8601 time instead of the clock")] = None,
    root: Annotated[
        Path | None, typer.Option(help="root metadata of the authority, from a trusted source")
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(envvar="ANJU_VERIFIER_STATE", help="where this device remembers what it saw"),
    ] = None,
) -> None:
    """Does the permit in a picture or text stand? Exit code 0 valid, 1 refused, 2 not judged."""
    _tolerate_any_terminal()
    verdict = _or_exit(lambda: _verify(source, trust, purpose, now, root, state))
    if as_json:
        plain = (sys.stdout.encoding or "ascii").lower().replace("-", "") != "utf8"
        typer.echo(json.dumps(to_dict(verdict), ensure_ascii=plain, indent=2))
    else:
        _print(verdict)
    raise typer.Exit(ExitCode.VALID if verdict.valid else ExitCode.REFUSED)


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
    for stream in (sys.stdout, sys.stderr):
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


def _verify(
    source: str, trust: Path, purpose: str, now: str | None, root: Path | None, state: Path | None
) -> Verdict:
    instant = _instant(now)
    texts = _texts(source)
    device = _device(trust, root, state)
    store = device.load()
    if purpose not in store.rules.disclosure:
        raise ProfileError(
            f"unknown purpose {purpose}; known are {', '.join(sorted(store.rules.disclosure))}"
        )
    _remember(store, device)
    verdicts = [verify_permit(text, store, instant, purpose=purpose) for text in texts]
    # A picture may show other symbols beside the permit's.
    ours = [v for v in verdicts if v.reason is not Reason.NOT_A_PERMIT]
    return (ours or verdicts)[0]


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


def _texts(source: str) -> list[str]:
    limit = qr.MAX_PICTURE_BYTES
    data = sys.stdin.buffer.read(limit + 1) if source == "-" else read(Path(source), limit)
    if data.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return qr.read_picture(data)
    if len(data) > 4 * MAX_TEXT_CHARS:
        raise ValueError("the file is neither a PNG nor a JPEG picture nor the text of a symbol")
    return [data.decode("latin-1")]


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
        age = verdict.trust
        style = "" if age.freshness is Freshness.FRESH else "yellow"
        line = f"trust data 信任数据: {max(age.age_s, 0) / 3600:.0f} h, {_FRESHNESS[age.freshness]}"
        console.print(Text(line, style=style))
