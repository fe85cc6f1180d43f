"""For the tests of the queue: drops in a spool folder, and a disk that dies."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from devices.terminal.disk import Disk
from devices.terminal.sending import SendPolicy
from devices.terminal.session import OperatorSession, keep

# No pauses between rounds: the tests count rounds, not seconds.
PROMPT = SendPolicy(deadline_s=5.0, first_wait_s=0.0, longest_wait_s=0.0)


class Killed(BaseException):
    """The process is gone: nothing of ours may catch this."""


class Clock:
    def __init__(self) -> None:
        self.at = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.at

    def advance(self, by: timedelta) -> None:
        self.at += by


@dataclass
class Fate:
    """When a terminal dies: before its ``after``-th step on any disk from now on.

    Attributes:
        power: whether the machine loses its power with it: of what was never synced, each rename
            and deletion by itself may be undone.
        keep: how much of a half-written file is found later, 0 to 1.
        seed: decides which.
    """

    after: int = 1 << 30
    power: bool = False
    keep: float = 0.5
    seed: int = 0
    steps: int = 0
    undo: list[Callable[[], None]] = field(default_factory=list)

    def step(self) -> None:
        self.steps += 1
        if self.steps > self.after:
            self.die()

    def die(self) -> None:
        if self.power:
            chance = random.Random(f"{self.seed} {self.steps}")
            for undo in reversed(self.undo):
                if chance.random() < 0.6:
                    undo()
        self.undo.clear()
        raise Killed


def mortal(fate: Fate) -> Callable[[Path], Disk]:
    """Disks that share one fate. Nothing waits for a real disk: a loss is played by hand."""

    class MortalDisk(Disk):
        def write(self, name: str, content: bytes) -> None:
            fate.steps += 1
            if fate.steps > fate.after:
                (self.directory / name).write_bytes(content[: int(len(content) * fate.keep)])
                fate.die()
            (self.directory / name).write_bytes(content)

        def rename(self, name: str, new_name: str) -> None:
            fate.step()
            source, target = self.directory / name, self.directory / new_name
            before = target.read_bytes() if target.exists() else None
            content = source.read_bytes()
            super().rename(name, new_name)

            def undo() -> None:
                source.write_bytes(content)
                if before is None:
                    target.unlink(missing_ok=True)
                else:
                    target.write_bytes(before)

            fate.undo.append(undo)

        def unlink(self, name: str) -> None:
            fate.step()
            path = self.directory / name
            if not path.exists():
                return
            content = path.read_bytes()
            super().unlink(name)
            fate.undo.append(lambda: _put_back(path, content))

        def sync(self) -> None:
            fate.step()
            fate.undo.clear()

    return MortalDisk


def _put_back(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def person_json(number: int) -> dict[str, Any]:
    return {
        "full_name": "王秀英",
        "gender": "female",
        "birth_date": "1990-01-01",
        "document_number": f"doc-{number}",
        "household_division_code": "330106",
        "residence_division_code": "440305",
        "residence_address": "粤海街道1号",
        "arrival_date": "2026-03-01",
    }


def record_of(number: int) -> bytes:
    return f"FMR fingerprint-{number}".encode()


def drop(spool: Path, number: int, **changes: Any) -> str:
    """Put a submission into a spool folder the way capture software does; returns its name."""
    spool.mkdir(exist_ok=True)
    name = f"visit-{number}"
    (spool / f"{name}-right-index.iso").write_bytes(record_of(number))
    stated = {
        "person": person_json(number),
        "samples": [{"file": f"{name}-right-index.iso", "position": 2}],
        "captured_at": "2026-03-02T17:30:00+08:00",
        **changes,
    }
    (spool / f"{name}.tmp").write_text(json.dumps(stated))
    (spool / f"{name}.tmp").rename(spool / f"{name}.json")
    return name


def told(spool: Path, name: str) -> dict[str, Any]:
    stated = json.loads((spool / f"{name}.state").read_text())
    assert isinstance(stated, dict)
    return stated


def logged_in(home: Path, lifetime: timedelta = timedelta(days=3_650)) -> Path:
    """The same terminal, with somebody logged in whom a small register does not ask for."""
    now = datetime.now(UTC)
    session = OperatorSession(
        session_id="s" * 32,
        operator_id="anna",
        token="token",
        key=Ed25519PrivateKey.generate(),
        opened_at=now,
        expires_at=now + lifetime,
        begun_at=now,
        used_at=now,
        idle=lifetime,
    )
    keep(home, session)
    return home
