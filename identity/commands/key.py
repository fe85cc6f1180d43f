"""``anju key``: the issuing keys of a working directory, from a shell on the server's machine.

They work on the directory itself, beside a running server or without one. The server notices new
and marked keys by itself and is asked to publish; without a server the command publishes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from issuance.root_commands import root_key, root_show, root_sign

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from issuance.keys import KeyInfo, KeyStore
    from issuance.publisher import Publisher

app = typer.Typer(
    no_args_is_help=True, help="Issuing keys: list, rotate, retire, compromised, the root."
)
app.command("root-key")(root_key)
app.command("root-show")(root_show)
app.command("root-sign")(root_sign)

Directory = Annotated[Path, typer.Argument(help="Working directory of the service.")]
Kid = Annotated[str, typer.Argument(metavar="KID", help="Identifier of a key, see `key list`.")]
Use = Annotated[str, typer.Option(help="permit, status-list, trust-targets, trust-status, …")]


class Office:
    """The issuing authority of a working directory, without its journal."""

    def __init__(self, directory: Path) -> None:
        from identity.app import ISSUANCE, KEYS
        from identity.config import load_config
        from identity.key_backend import open_issuing_keys
        from identity.ports import SystemClock

        config = load_config(directory)
        self.directory = directory / ISSUANCE
        self.keys: KeyStore = open_issuing_keys(self.directory / KEYS, config.keys)
        self.clock: Callable[[], datetime] = SystemClock(config.development.clock_offset).now

    def now(self) -> datetime:
        return self.clock().replace(microsecond=0)

    def publisher(self) -> Publisher:
        from issuance.publisher import Publisher

        return Publisher(self.directory / "trust", self.keys, self.clock)

    def publish(self) -> None:
        from issuance.authority import publish

        publish(self.directory, self.clock, self.keys)
        typer.echo("published")


@app.command("list")
def list_keys(directory: Directory) -> None:
    """Every key: what it is for, when it signs, and whether it is still good."""
    from identity.commands.session import show_table
    from issuance import ceremony

    office = Office(directory)
    now = office.now()
    rows = [
        (
            info.kid,
            info.use.value,
            info.algorithm.name,
            f"{info.not_before:%Y-%m-%d}",
            f"{info.not_after:%Y-%m-%d}",
            _state(info, now),
        )
        for info in office.keys.infos()
    ]
    show_table(("key", "use", "algorithm", "from", "until", "state"), rows)
    root = ceremony.summary(office.publisher().newest_root())
    typer.echo(
        f"root {root.version}: {root.threshold} of {', '.join(root.keys['root'])}, "
        f"expires {root.expires_at:%Y-%m-%d}"
    )


@app.command()
def rotate(
    directory: Directory,
    use: Use = "permit",
    algorithm: Annotated[str | None, typer.Option(help="EDDSA or ES256; as before.")] = None,
) -> None:
    """Sign with a new key from now on; the last one retires, and what it signed stays good.

    Permit keys rotate by themselves every month, announced a week ahead; this is for emergencies.
    """
    from identity.errors import InvalidRequestError
    from issuance import key_office
    from issuance.keys import KeyUse
    from issuance.signing import Algorithm

    try:
        wanted_use = KeyUse(use)
        wanted = Algorithm[algorithm] if algorithm else None
    except (KeyError, ValueError) as error:
        uses = ", ".join(KeyUse)
        raise InvalidRequestError(
            "KEY_INVALID", f"the use must be one of {uses}; the algorithm EDDSA or ES256"
        ) from error
    office = Office(directory)
    made = key_office.rotate(office.keys, wanted_use, office.now(), wanted)
    _finish(office, wanted_use in key_office.NAMED_BY_ROOT, made)


@app.command()
def retire(directory: Directory, kid: Kid) -> None:
    """End a key's signing period now; what it signed stays good."""
    from issuance import key_office

    office = Office(directory)
    made = key_office.retire(office.keys, kid, office.now())
    _finish(office, _use_of(office, kid) in key_office.NAMED_BY_ROOT, made)


@app.command()
def compromised(directory: Directory, kid: Kid) -> None:
    """Others may have a key: refuse everything that it ever signed, and replace it.

    The holders of its permits need new ones: a thief can write any date.
    """
    from issuance import key_office

    office = Office(directory)
    made = key_office.compromise(office.keys, kid, office.now())
    typer.echo(f"key {kid} is marked as compromised")
    _finish(office, _use_of(office, kid) in key_office.NAMED_BY_ROOT, made)


@app.command()
def root_renew(
    directory: Directory,
    offline: Annotated[Path, typer.Option(help="Directory of the root keys, while it is here.")],
) -> None:
    """Propose, sign and install a new root at once, where enough root keys are at hand."""
    import os

    from issuance import key_office
    from issuance.key_files import FileKeyStore
    from issuance.root_commands import PASSPHRASE_VARIABLE

    office = Office(directory)
    passphrase = os.environ.get(PASSPHRASE_VARIABLE, "").encode() or None
    key_office.prepare_for_root(office.keys, office.now())
    office.publisher().renew_root(FileKeyStore(offline, passphrase))
    _installed(office)


@app.command()
def root_propose(
    directory: Directory,
    output: Annotated[Path, typer.Option("--output", "-o", help="The proposal, unsigned.")],
    root_keys: Annotated[
        list[Path],
        typer.Option("--root-key", help="Public facts of a root key (`root-key`); one or more."),
    ],
    threshold: Annotated[int, typer.Option(min=1, help="How many must sign the next root.")] = 1,
) -> None:
    """Write the next root for the holders of root keys to look at and sign."""
    from issuance import key_office
    from issuance.key_facts import read_info

    office = Office(directory)
    key_office.prepare_for_root(office.keys, office.now())
    infos = [read_info(path) for path in root_keys]
    output.write_bytes(office.publisher().propose_root(infos, threshold))
    root_show(output)


@app.command()
def root_install(
    directory: Directory,
    root: Annotated[Path, typer.Argument(help="The root, signed by enough root keys.")],
) -> None:
    """Put a signed root in force and publish it; verifiers follow by themselves."""
    office = Office(directory)
    office.publisher().install_root(root.read_bytes())
    _installed(office)


def _state(info: KeyInfo, now: datetime) -> str:
    if info.compromised_at is not None:
        return "compromised"
    if now < info.not_before:
        return "next"
    return "signs" if now < info.not_after else "retired"


def _use_of(office: Office, kid: str) -> str:
    return next(info.use for info in office.keys.infos() if info.kid == kid)


def _finish(office: Office, root_too: bool, made: KeyInfo | None) -> None:
    if made is not None:
        typer.echo(f"key {made.kid} signs for {made.use} from {made.not_before:%Y-%m-%d %H:%M} UTC")
    office.publish()
    if root_too:
        typer.echo("the root names this key: renew the root now (`anju key root-renew --help`)")


def _installed(office: Office) -> None:
    from issuance import ceremony

    said = ceremony.summary(office.publisher().newest_root())
    typer.echo(f"root {said.version} is in force, signed by {', '.join(said.signed_by)}")
    office.publish()
