"""What a verifier knows: keys, profile and status lists out of a checked trust bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from issuance import bundle, status_list
from issuance.errors import DecodeError, ProfileError, TrustError
from issuance.keys import KeyInfo, KeyUse, info_from_json
from issuance.memory import Memory
from issuance.profile import Profile, from_json
from issuance.repository import verify_repository
from issuance.signing import PublicKey
from issuance.status_list import StatusList
from issuance.types import Freshness, PermitStatus, StatusRef, TrustAge


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A key of the issuer and what is known about it."""

    info: KeyInfo
    public: PublicKey


@dataclass(frozen=True, slots=True)
class TrustStore:
    """A checked trust bundle, ready to verify permits offline. Immutable.

    Attributes:
        keys: by kid; retired ones stay for as long as permits they signed may be valid.
        lists: by list number.
        published_at: signed time of publication.
        expires_at: after this it must not be used.
        floor: the newest signed time this verifier has seen; its clock must not be below.
        version: grows with every publication.
        root_fingerprint: SHA-256 of the authority's first root, hexadecimal.
        anchored: whether a root known beforehand vouched for it; False on first use, when a person
            should compare `root_fingerprint` with what the authority made known.
        memory: what to save for the next load.
    """

    rules: Profile
    keys: Mapping[str, TrustedKey]
    lists: Mapping[int, StatusList]
    published_at: datetime
    expires_at: datetime
    floor: datetime
    version: int
    root_fingerprint: str
    anchored: bool
    memory: Memory

    @classmethod
    def load(
        cls, data: bytes, memory: Memory | None = None, root: bytes | None = None
    ) -> TrustStore:
        """Check a bundle and read it. Needs no clock: age is judged at each verification.

        Args:
            memory: from the last load on this device (`issuance.memory`); None on first use.
            root: root metadata received on a trusted way; None to trust on first use.

        Raises:
            RollbackError: older than what this device has used.
            TrustError: NOT_A_BUNDLE, BAD_TRUST or WRONG_ROOT.
        """
        repository = verify_repository(bundle.unpack(data), memory, root)
        try:
            rules = from_json(repository.files["profile.json"])
            keys = _keys(repository.files["keys.json"])
            lists = _lists(repository.files, rules, keys)
        except (ProfileError, DecodeError) as error:
            raise TrustError("BAD_TRUST", f"the trust bundle is not sound: {error}") from error
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise TrustError("BAD_TRUST", "the trust bundle lacks what it must hold") from error
        return cls(
            rules=rules,
            keys=keys,
            lists=lists,
            published_at=repository.published_at,
            expires_at=repository.expires_at,
            floor=repository.memory.floor,
            version=repository.version,
            root_fingerprint=repository.first_root_sha256,
            anchored=repository.anchored,
            memory=repository.memory,
        )

    def age(self, now: datetime) -> TrustAge:
        """How old the bundle is at `now`, and what that means by its own limits."""
        age_s = (now - self.published_at).total_seconds()
        limits = self.rules.limits
        if age_s > limits.max_age_s or now >= self.expires_at:
            freshness = Freshness.TOO_OLD
        else:
            freshness = Freshness.FRESH if age_s <= limits.fresh_s else Freshness.STALE
        return TrustAge(freshness, self.published_at, age_s)

    def clock_is_plausible(self, now: datetime) -> bool:
        """Whether `now` is not before the newest signed time seen, but for the leeway."""
        return now + timedelta(seconds=self.rules.limits.clock_leeway_s) >= self.floor

    def status(self, ref: StatusRef) -> PermitStatus | None:
        """The published status, or None where the bundle has no answer."""
        entries = self.lists.get(ref.list_number)
        if entries is None or ref.index >= len(entries):
            return None
        value = entries[ref.index]
        return PermitStatus(value) if value in PermitStatus.__members__.values() else None


def _keys(data: bytes) -> dict[str, TrustedKey]:
    document = json.loads(data)
    if document["version"] != 1:
        raise ValueError("unknown version of keys.json")
    keys = {}
    for entry in document["keys"]:
        info = info_from_json(entry)
        public = PublicKey.from_der(info.kid, info.public_der)
        if public.algorithm is not info.algorithm or info.kid in keys:
            raise ValueError("a key is listed twice or with the wrong algorithm")
        keys[info.kid] = TrustedKey(info, public)
    return keys


def _lists(
    files: Mapping[str, bytes], rules: Profile, keys: Mapping[str, TrustedKey]
) -> dict[int, StatusList]:
    lists = {}
    for path, data in files.items():
        if not path.startswith("status/"):
            continue
        number = int(path.removeprefix("status/"))
        token = status_list.read(data, _status_key(data, keys))
        # A list of one name under the file name of another would answer for the wrong permits.
        if token.uri != rules.status_uri(number):
            raise ValueError("a status list has another name than its file")
        lists[number] = token.statuses
    return lists


def _status_key(data: bytes, keys: Mapping[str, TrustedKey]) -> PublicKey:
    kid = status_list.kid_of(data)
    key = keys.get(kid or "")
    if key is None or key.info.use is not KeyUse.STATUS_LIST:
        raise ValueError("a status list is signed by an unknown key or one of another use")
    return key.public
