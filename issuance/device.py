"""What a verifying device keeps: a trust bundle, and a memory of what it has seen.

Both are replaced as a whole or not at all, so that a stick pulled too early or a full disk leaves
the device with what it had.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from issuance import delta, memory
from issuance.bundle import MAX_BUNDLE_BYTES
from issuance.errors import TrustError
from issuance.trust import TrustStore


@dataclass(frozen=True, slots=True)
class Device:
    """A device's files.

    Attributes:
        trust: the bundle it verifies with.
        state: its memory; None to remember nothing.
        root: root metadata that reached it on a trusted way, if any.
    """

    trust: Path
    state: Path | None = None
    root: Path | None = None

    def load(self) -> TrustStore:
        """The bundle that is here, verified. Raises `TrustError`, OSError."""
        return self._verified(read(self.trust, MAX_BUNDLE_BYTES))

    def take(self, source: Path) -> TrustStore:
        """Verify a bundle or a delta of it, and keep it in place of the one that is here.

        Raises:
            TrustError: it is damaged, cut short, older than what was seen, of another authority, or
                a delta that does not fit; what is here stays.
            OSError: a file cannot be read or written; what is here stays.
        """
        data = read(source, MAX_BUNDLE_BYTES)
        if delta.is_delta(data):
            if not self.trust.exists():
                raise TrustError("DELTA_UNFIT", "there is no bundle yet; take a whole one first")
            data = delta.apply(read(self.trust, MAX_BUNDLE_BYTES), data)
        store = self._verified(data)
        memory.replace_file(self.trust, data)
        self.remember(store)
        return store

    def remember(self, store: TrustStore) -> None:
        """Save what `store` adds to the memory. Raises OSError."""
        if self.state is not None:
            memory.save(self.state, store.memory)

    def _verified(self, data: bytes) -> TrustStore:
        pinned = read(self.root, MAX_BUNDLE_BYTES) if self.root else None
        return TrustStore.load(data, memory.load(self.state) if self.state else None, pinned)


def read(path: Path, limit: int) -> bytes:
    """A file's content. Raises OSError, or ValueError if it is larger than `limit` bytes."""
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{path} is larger than {limit} bytes")
    return data
