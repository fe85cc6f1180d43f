"""What a verifier remembers between runs: the root it trusts, the newest time and versions seen.

TUF alone cannot tell that a clock is slow: a verifier set back to last month accepts last month's
bundle and last month's revocations. So the newest *signed* time ever seen is kept as a floor, and a
clock below it is refused. One small JSON file, replaced atomically.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from issuance.errors import TrustError


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered about one authority.

    Attributes:
        root_version, root_sha256: the newest root metadata accepted.
        floor: the newest signed time seen.
        versions: role -> newest version accepted.
    """

    root_version: int
    root_sha256: str
    floor: datetime
    versions: Mapping[str, int] = field(default_factory=dict)


def load(path: Path) -> Memory | None:
    """What was saved at `path`, None if nothing was. Raises `TrustError` with BAD_STATE."""
    try:
        document = json.loads(path.read_bytes())
        floor = datetime.fromisoformat(document["floor"])
        versions = {str(role): int(version) for role, version in document["versions"].items()}
        memory = Memory(int(document["root_version"]), document["root_sha256"], floor, versions)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TrustError(
            "BAD_STATE",
            f"the verifier's memory {path.name} is unreadable; "
            "replace it from a backup, or remove it and compare the root fingerprint anew",
        ) from error
    if floor.utcoffset() is None or not isinstance(memory.root_sha256, str):
        raise TrustError("BAD_STATE", f"the verifier's memory {path.name} is not ours")
    return memory


def save(path: Path, memory: Memory) -> None:
    """Replace what is saved at `path`. Raises OSError."""
    document = {
        "root_version": memory.root_version,
        "root_sha256": memory.root_sha256,
        "floor": memory.floor.isoformat(),
        "versions": dict(memory.versions),
    }
    replace_file(path, json.dumps(document, indent=1, sort_keys=True).encode() + b"\n")


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file as a whole or not at all, durably. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
