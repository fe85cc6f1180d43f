"""The ``anju`` command.

Every failure is one clear line on stderr and a non-zero exit: 1 for a refusal or a failure, 2 for
wrong usage. Sub-commands import what they need when they run, so that ``anju verify`` works where
only the verifier is installed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from devices.errors import DevicesError
from identity.commands import audit, case, key, operator, permit, register, terminal, trust
from identity.errors import IdentityError
from issuance.cli import verify
from issuance.errors import IssuanceError
from matcher.errors import MatcherError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="anju (安居): registration, temporary-residence permits and their offline verification.",
)
app.add_typer(terminal.app, name="terminal")
app.add_typer(permit.app, name="permit")
app.add_typer(case.app, name="case")
app.add_typer(register.app, name="register")
app.add_typer(operator.app, name="operator")
app.add_typer(trust.app, name="trust")
app.add_typer(key.app, name="key")
app.add_typer(audit.app, name="audit")

Directory = Annotated[Path, typer.Argument(help="Working directory of the service.")]


@app.command()
def init(
    directory: Directory,
    config: Annotated[
        Path | None, typer.Option(help="A configuration file to start from (anju.toml).")
    ] = None,
) -> None:
    """Make a working directory: keys, authorities, configuration and database.

    Nothing is ever overwritten.
    """
    from identity.config import DEFAULT_TOML
    from identity.setup import create_installation

    toml = DEFAULT_TOML if config is None else config.read_text(encoding="utf-8")
    made = create_installation(directory, toml)
    typer.echo(f"working directory     {directory}")
    typer.echo(f"root of trust         {made.root_fingerprint} (SHA-256)")
    typer.echo(f"offline root key      {made.offline}: move it away from this machine")
    typer.echo(f"operator credentials  {directory / 'operators'}")
    typer.echo(f"next                  anju serve {directory}")


@app.command()
def serve(directory: Directory) -> None:
    """Run the service until SIGTERM or Ctrl-C; running calls are finished first."""
    from identity.serving import run

    run(directory)


@app.command()
def demo(
    directory: Annotated[Path, typer.Argument(help="A new directory for everything made.")],
    people: Annotated[int, typer.Option(min=200, help="How many people to register.")] = 240,
    data: Annotated[
        Path | None, typer.Option(help="Folder with real templates; synthetic ones otherwise.")
    ] = None,
) -> None:
    """Run the main job end to end on this machine, with two terminals at two stations."""
    from identity.demo import run

    run(directory, people, data)


app.command("verify")(verify)


def main() -> None:
    """Entry point: runs the command and turns every failure into one line."""
    try:
        app()
    except (IdentityError, DevicesError, IssuanceError, MatcherError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted")
    except BrokenPipeError:
        # The reader of our output has gone (`anju … | head`): nobody is left to tell.
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}")
    except ModuleNotFoundError as error:
        _fail(
            f"{error.name} is not installed; this command needs the [service] extra, see README.md"
        )
    except Exception as error:
        if os.environ.get("ANJU_DEBUG"):
            raise
        _fail(f"internal error ({type(error).__name__}); set ANJU_DEBUG=1 to see where")


def _fail(message: str) -> None:
    typer.echo(f"anju: {' '.join(message.split())}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
