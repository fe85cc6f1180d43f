"""The files of one directory, changed so that a crash leaves the old content or the new.

Everything the terminal keeps goes through the five small steps at the end of :class:`Disk`. Tests
put another class in its place, which dies between any two of them or undoes what was never synced.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_DRAFT = re.compile(r"\..+\.[0-9a-f]{8}\.new")


class Disk:
    """One directory. Names are plain file names; contents are whole files.

    Attributes:
        directory: exists.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def names(self) -> list[str]:
        """What is there, sorted; no folders, no drafts."""
        with os.scandir(self.directory) as found:
            names = [one.name for one in found if one.is_file(follow_symlinks=False)]
        return sorted(name for name in names if not _DRAFT.fullmatch(name))

    def read(self, name: str) -> bytes:
        return (self.directory / name).read_bytes()

    def replace(self, name: str, content: bytes) -> None:
        """Write a file, readable by its owner only. Durable once this returns.

        Raises:
            OSError: the old content stands, or there is no such file still.
        """
        draft = f".{name}.{secrets.token_hex(4)}.new"
        try:
            self.write(draft, content)
            self.rename(draft, name)
        except OSError:
            with contextlib.suppress(OSError):
                self.unlink(draft)
            raise
        self.sync()

    def move(self, name: str, new_name: str) -> None:
        self.rename(name, new_name)
        self.sync()

    def remove(self, *names: str) -> None:
        """Delete files, as far as they are there; they stay deleted once this returns."""
        for name in names:
            self.unlink(name)
        self.sync()

    def sweep(self) -> None:
        """Delete the drafts that an earlier process left when it died."""
        drafts = [one for one in os.listdir(self.directory) if _DRAFT.fullmatch(one)]
        for name in drafts:
            self.unlink(name)

    # The steps a crash can come between.

    def write(self, name: str, content: bytes) -> None:
        """A new file with its content on the disk."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        descriptor = os.open(self.directory / name, flags, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def rename(self, name: str, new_name: str) -> None:
        (self.directory / name).replace(self.directory / new_name)

    def unlink(self, name: str) -> None:
        (self.directory / name).unlink(missing_ok=True)

    def sync(self) -> None:
        """Make renames and deletions durable."""
        if os.name != "posix":
            return
        descriptor = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold a lock file; it is let go at the end of the block, or when the process dies.

    Yields:
        Whether the lock is held: always with ``wait``, else only if nobody else held it.
    """
    with path.open("a+b") as file:
        held = _lock(file, wait)
        try:
            yield held
        finally:
            if held:
                _unlock(file)


class LockNote:
    """A few words beside a lock: what its holder is doing. They mean nothing once it is let go.

    Only for people to look at, so nothing waits for it to be on the disk, and a disk that has no
    room for it is left alone.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, text: str) -> None:
        """By the holder of the lock."""
        with contextlib.suppress(OSError), self._path.open("r+b") as file:
            file.seek(_NOTE_AT)
            file.write(text.encode().ljust(_NOTE_BYTES)[:_NOTE_BYTES])

    def read(self) -> str:
        """What the holder wrote; empty if nobody holds the lock."""
        if not self._path.exists():
            return ""
        with locked(self._path, wait=False) as mine:
            if mine:
                return ""
        with self._path.open("rb") as file:
            file.seek(_NOTE_AT)
            return file.read(_NOTE_BYTES).decode(errors="replace").strip()


# Behind the byte that Windows locks, and keeps others from reading.
_NOTE_AT, _NOTE_BYTES = 1, 64


if sys.platform == "win32":
    import msvcrt
    import time

    def _lock(file: IO[bytes], wait: bool) -> bool:
        while True:
            file.seek(0)
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            except OSError:
                if not wait:
                    return False
                time.sleep(0.02)
            else:
                return True

    def _unlock(file: IO[bytes]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(file: IO[bytes], wait: bool) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

    def _unlock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)
