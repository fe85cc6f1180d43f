"""How a terminal is set up: ``terminal.toml`` beside its credentials, for all its commands alike.

::

    fingers_asked = 2         # of each person; a reason is needed for each that is not captured
    offline_limit_days = 7    # without contact for so long, nothing more is taken
    offline_warning_days = 5  # and the operator is warned; 5/7 of the limit if left out
    max_entries = 2000        # submissions that may wait
    max_mib = 512             # and their size

Every line may be left out, and so may the file. What is queued already is sent whatever it says.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path

from devices.errors import CredentialsError
from devices.terminal.queue import Limits
from devices.terminal.submission import MAX_FINGERS

SETTINGS_FILE = "terminal.toml"


@dataclass(frozen=True)
class Settings:
    """What :data:`SETTINGS_FILE` says, with what it leaves out filled in."""

    limits: Limits = field(default_factory=Limits)
    fingers_asked: int = 1


@dataclass(frozen=True)
class _File:
    fingers_asked: int = 1
    offline_limit_days: int = Limits.offline_limit.days
    offline_warning_days: int | None = None
    max_entries: int = Limits.max_entries
    max_mib: int = Limits.max_bytes >> 20


def read_settings(directory: Path) -> Settings:
    """The settings of the terminal in a directory.

    Raises:
        CredentialsError: the file is no TOML, has an unknown key, or a value of no use.
        QueueError: limits that contradict each other.
    """
    path = directory / SETTINGS_FILE
    try:
        stated = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Settings()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CredentialsError(f"cannot read {path}: {error}") from error
    known = {one.name for one in fields(_File)}
    for name, value in stated.items():
        if name not in known:
            raise CredentialsError(
                f"{path}: {name} is unknown; expected {', '.join(sorted(known))}"
            )
        if type(value) is not int or value < 1:
            raise CredentialsError(f"{path}: {name} must be a whole number from 1 on")
    file = _File(**stated)
    if file.fingers_asked > MAX_FINGERS:
        raise CredentialsError(f"{path}: fingers_asked must be at most {MAX_FINGERS}")
    limit, warning = timedelta(days=file.offline_limit_days), file.offline_warning_days
    limits = Limits(
        max_entries=file.max_entries,
        max_bytes=file.max_mib << 20,
        offline_limit=limit,
        offline_warning=limit * 5 / 7 if warning is None else timedelta(days=warning),
    )
    return Settings(limits, file.fingers_asked)
