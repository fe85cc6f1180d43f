"""The life of online keys: the next one in time, one retired, one replaced because it was stolen.

These work on a key store alone, beside a running server: stores notice each other's changes. What
verifiers know changes with the next publication, and for the keys that the root names with the next
root (`ceremony`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from issuance.ceremony import ROLE_USES, ROOT_LIFE
from issuance.errors import KeyUseError
from issuance.keys import KeyInfo, KeyStore, KeyUse
from issuance.signing import Algorithm

# ISSUANCE.md: a thief can backdate a permit to any day on which the key signed, so that is a month.
PERMIT_KEY_LIFE: Final = timedelta(days=31)
# The next key is published this long before it signs, so that verifiers know it by then.
PERMIT_KEY_LEAD: Final = timedelta(days=7)
ONLINE_KEY_LIFE: Final = timedelta(days=3 * 365)
_ONLINE_KEY_LEAD: Final = timedelta(days=30)

# Uses whose successors are made without anybody's help: targets vouches for them.
AUTOMATIC: Final = (KeyUse.PERMIT, KeyUse.STATUS_LIST, KeyUse.TRUST_STATUS)
# Uses whose keys the root names: a new one counts from the next root on.
NAMED_BY_ROOT: Final = frozenset(ROLE_USES.values())
_LEAD: Final[Mapping[KeyUse, timedelta]] = {KeyUse.PERMIT: PERMIT_KEY_LEAD}
_LIFE: Final[Mapping[KeyUse, timedelta]] = {KeyUse.PERMIT: PERMIT_KEY_LIFE}


def ensure(keys: KeyStore, use: KeyUse, now: datetime) -> KeyInfo | None:
    """The key made to follow the last one of `use`, None if that does not end soon."""
    usable = [info for info in _unharmed(keys, use) if info.not_after > now]
    end = max((info.not_after for info in usable), default=now)
    if end - now > _LEAD.get(use, _ONLINE_KEY_LEAD):
        return None
    return _generate(keys, use, end, usable[-1].algorithm if usable else None)


def rotate(
    keys: KeyStore, use: KeyUse, now: datetime, algorithm: Algorithm | None = None
) -> KeyInfo:
    """A new key of `use` that signs from now on; the ones that signed till now retire.

    Verifiers that have not fetched the trust material since will not know it: without need, leave
    permit keys to `ensure`, which announces the next one a week ahead.

    Raises `KeyUseError` for root keys, which live elsewhere.
    """
    if use is KeyUse.TRUST_ROOT:
        raise KeyUseError("root keys are replaced by a ceremony, see CEREMONY.md")
    made = _generate(keys, use, now, algorithm)
    for info in _unharmed(keys, use):
        if info.kid != made.kid and info.not_after > now:
            keys.retire(info.kid, now)
    return made


def retire(keys: KeyStore, kid: str, now: datetime) -> KeyInfo | None:
    """End a key's signing period; what it signed stays good. The key made in its place, if needed.

    Raises `KeyUseError` if there is no such key.
    """
    retired = keys.retire(_info(keys, kid).kid, now)
    return _replace(keys, retired, now)


def compromise(keys: KeyStore, kid: str, now: datetime) -> KeyInfo | None:
    """Note that others may have a key: nothing that it signed counts once that is published.

    Returns the key made in its place, if none of its use signs now. Raises `KeyUseError` if there
    is no such key.
    """
    marked = keys.mark_compromised(_info(keys, kid).kid, now)
    return _replace(keys, marked, now)


def prepare_for_root(keys: KeyStore, now: datetime) -> tuple[KeyInfo, ...]:
    """Replace the keys that the root names and that would end long before it does.

    Three months are left for the ceremony: proposing again meanwhile makes no new keys.
    """
    life = ROOT_LIFE - timedelta(days=90)
    return tuple(
        rotate(keys, use, now)
        for use in ROLE_USES.values()
        if use is not KeyUse.TRUST_ROOT
        and not any(
            info.signs_at(now) and info.not_after >= now + life for info in _unharmed(keys, use)
        )
    )


def _replace(keys: KeyStore, gone: KeyInfo, now: datetime) -> KeyInfo | None:
    if any(info.signs_at(now) for info in _unharmed(keys, gone.use)):
        return None
    return _generate(keys, gone.use, now, gone.algorithm)


def _generate(keys: KeyStore, use: KeyUse, begin: datetime, algorithm: Algorithm | None) -> KeyInfo:
    if algorithm is None:
        of_use = [info for info in keys.infos() if info.use is use]
        algorithm = of_use[-1].algorithm if of_use else Algorithm.EDDSA
    return keys.generate(use, algorithm, begin, begin + _LIFE.get(use, ONLINE_KEY_LIFE))


def _unharmed(keys: KeyStore, use: KeyUse) -> list[KeyInfo]:
    return [info for info in keys.infos() if info.use is use and info.compromised_at is None]


def _info(keys: KeyStore, kid: str) -> KeyInfo:
    for info in keys.infos():
        if info.kid == kid:
            return info
    raise KeyUseError(f"there is no key {kid}")
