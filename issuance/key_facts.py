"""A directory of public facts about keys: `<kid>.json` each, mode 0600 in a directory of 0700.

Both key stores keep their facts here; they differ in where the private halves are.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from issuance.errors import KeyStoreError, KeyUseError
from issuance.keys import KeyInfo, KeyUse, info_from_json, info_to_dict


class KeyFacts:
    """The facts in `directory`, which is made if missing."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._cached: tuple[int, tuple[KeyInfo, ...]] | None = None
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise KeyStoreError(f"cannot make the key directory: {error.strerror}") from error

    def infos(self) -> tuple[KeyInfo, ...]:
        """All keys, oldest `not_before` first, ties by kid."""
        # Another process may add or mark a key; every write renames a file and so touches the
        # directory's modification time.
        try:
            changed_ns = self._directory.stat().st_mtime_ns
        except OSError as error:
            raise KeyStoreError(f"cannot read the key directory: {error.strerror}") from error
        if self._cached is None or self._cached[0] != changed_ns:
            infos = [self._read(path) for path in self._directory.glob("*.json")]
            ordered = tuple(sorted(infos, key=lambda info: (info.not_before, info.kid)))
            self._cached = (changed_ns, ordered)
        return self._cached[1]

    def info(self, kid: str, use: KeyUse | None = None) -> KeyInfo:
        """Raises `KeyUseError` if there is no such key, or it is not for `use`."""
        for info in self.infos():
            if info.kid == kid:
                if use is not None and info.use is not use:
                    raise KeyUseError(f"key {kid} is for {info.use}, not for {use}")
                return info
        raise KeyUseError(f"there is no key {kid}")

    def add(self, info: KeyInfo) -> None:
        if info.not_before >= info.not_after:
            raise KeyStoreError("a key's period must end after it begins")
        self.write(f"{info.kid}.json", to_json(info), exclusive=True)

    def mark_compromised(self, kid: str, at: datetime) -> KeyInfo:
        return self._replace(replace(self.info(kid), compromised_at=at))

    def retire(self, kid: str, at: datetime) -> KeyInfo:
        info = self.info(kid)
        end = max(info.not_before, min(info.not_after, at))
        return self._replace(replace(info, not_after=end))

    def read(self, name: str) -> bytes:
        """A file's content. Raises OSError."""
        return (self._directory / name).read_bytes()

    def write(self, name: str, data: bytes, *, exclusive: bool) -> None:
        """Write durably with mode 0600; `exclusive` refuses to replace a file."""
        path = self._directory / name
        partial = path.with_name(f".{name}.{secrets.token_hex(4)}")
        try:
            if exclusive and path.exists():
                raise KeyStoreError(f"{name} exists and is not overwritten")
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
            _sync_directory(self._directory)
        except OSError as error:
            raise KeyStoreError(f"cannot write {name}: {error.strerror}") from error

    def _replace(self, info: KeyInfo) -> KeyInfo:
        self.write(f"{info.kid}.json", to_json(info), exclusive=False)
        self._cached = None
        return info

    def _read(self, path: Path) -> KeyInfo:
        info = read_info(path)
        if path.stem != info.kid:
            raise KeyStoreError(f"{path.name} describes the key {info.kid}")
        return info


def to_json(info: KeyInfo) -> bytes:
    """A facts file."""
    return json.dumps(info_to_dict(info), indent=1).encode() + b"\n"


def read_info(path: Path) -> KeyInfo:
    """The facts in one file. Raises `KeyStoreError`."""
    try:
        return info_from_json(json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KeyStoreError(f"cannot read {path.name}: {type(error).__name__}") from error


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
