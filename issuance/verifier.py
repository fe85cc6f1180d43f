"""Bytes + trust + clock -> verdict with a reason.

Theory of operation. The steps run from what needs no trust to what needs most of it: read the
symbol's text, parse COSE, judge the verifier's own clock and trust data, find the key, verify the
signature, and only then look at what was signed. The first step that refuses decides. A verifier
whose clock is wrong or whose trust data is too old says so before it says anything about a permit,
because nothing it could say would be right.

`verify` returns a verdict for every input and never raises on one; its work is bounded by the size
of a QR symbol.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from issuance import codec, envelope, permit_number, signing
from issuance.errors import DecodeError
from issuance.keys import KeyUse
from issuance.messages import GENDERS, sentences
from issuance.profile import GENERAL
from issuance.trust import TrustedKey, TrustStore
from issuance.types import (
    Freshness,
    Permit,
    PermitStatus,
    Photo,
    Reason,
    Stage,
    TrustAge,
    Verdict,
)

_log = logging.getLogger(__name__)

TRUST_STALE: Final = "TRUST_STALE"
_STATUS_REASONS: Final[Mapping[PermitStatus | None, Reason]] = {
    PermitStatus.REVOKED: Reason.REVOKED,
    PermitStatus.SUSPENDED: Reason.SUSPENDED,
    None: Reason.STATUS_UNKNOWN,
}


class _RefusedError(Exception):
    """Carries a refusal out of the steps; never leaves this module."""

    def __init__(self, stage: Stage, reason: Reason, **values: str) -> None:
        super().__init__(reason)
        self.stage = stage
        self.reason = reason
        self.values = values


def verify(
    data: bytes | str, trust: TrustStore, now: datetime, *, purpose: str = GENERAL
) -> Verdict:
    """Does this permit stand?

    Args:
        data: the text of the QR symbol, as text or ASCII bytes. May be anything.
        now: the verifier's clock, timezone-aware.
        purpose: the department that asks, or "general"; decides what the verdict shows.

    Raises:
        ProfileError: the trust bundle's profile knows no such purpose; nothing about `data`.
        ValueError: `now` has no time zone.
    """
    fields = trust.rules.shown_to(purpose)
    if now.utcoffset() is None:
        raise ValueError("now must be timezone-aware")
    try:
        permit = _check(data, trust, now, purpose)
    except (DecodeError, _RefusedError) as refusal:
        values = refusal.values if isinstance(refusal, _RefusedError) else {}
        # An age reckoned with a wrong clock would be wrong too.
        age = trust.age(now) if trust.clock_is_plausible(now) else None
        return _verdict(refusal.reason, refusal.stage, age, values)
    except Exception as error:
        # A bug of ours must refuse, not crash. The type alone is logged: texts could quote data.
        _log.error("verification failed: %s", type(error).__name__)
        return _verdict(Reason.INTERNAL, Stage.READ, None, {})
    shown = _texts(permit, trust)
    return _verdict(
        Reason.VALID,
        None,
        trust.age(now),
        {"until": shown["valid_until"]},
        {name: shown[name] for name in fields if name in shown},
        permit.holder.photo,
    )


def _check(data: bytes | str, trust: TrustStore, now: datetime, purpose: str) -> Permit:
    message = signing.parse(envelope.from_text(_text(data)))
    _check_trust(trust, now)
    key = _key(message, trust)
    if not signing.verify_signature(message, key.public):
        raise _RefusedError(Stage.SIGNATURE, Reason.BAD_SIGNATURE)
    permit = codec.permit_from(codec.read_claims(message.payload), trust.rules)
    if not key.info.not_before <= permit.issued_at < key.info.not_after:
        raise _RefusedError(Stage.CLAIMS, Reason.KEY_OUT_OF_PERIOD)
    _check_time(permit, trust, now)
    status = trust.status(permit.status)
    if status is not PermitStatus.VALID:
        raise _RefusedError(Stage.STATUS, _STATUS_REASONS[status])
    if permit.uses and purpose != GENERAL and purpose not in permit.uses:
        raise _RefusedError(Stage.PURPOSE, Reason.PURPOSE_NOT_ALLOWED)
    return permit


def _text(data: bytes | str) -> str:
    if isinstance(data, str):
        return data
    if len(data) > envelope.MAX_TEXT_CHARS + 4:
        raise _RefusedError(Stage.READ, Reason.TOO_LARGE)
    # Every byte becomes a character; those beyond ASCII are no base45 digits.
    return data.decode("latin-1")


def _check_trust(trust: TrustStore, now: datetime) -> None:
    if not trust.clock_is_plausible(now):
        seen = _minute(trust.floor, trust)
        raise _RefusedError(Stage.TRUST, Reason.CLOCK_BEFORE_TRUST, published=seen)
    if trust.age(now).freshness is Freshness.TOO_OLD:
        published = _minute(trust.published_at, trust)
        raise _RefusedError(Stage.TRUST, Reason.TRUST_TOO_OLD, published=published)


def _key(message: signing.Sign1, trust: TrustStore) -> TrustedKey:
    key = trust.keys.get(message.kid or "")
    if key is None:
        raise _RefusedError(Stage.KEY, Reason.UNKNOWN_KEY)
    if key.info.use is not KeyUse.PERMIT:
        raise _RefusedError(Stage.KEY, Reason.WRONG_KEY_USE)
    if key.public.algorithm is not message.algorithm:
        raise _RefusedError(Stage.KEY, Reason.ALGORITHM_MISMATCH)
    # Whoever has the key can date a permit to before the theft, so no permit of it is accepted.
    if key.info.compromised_at is not None:
        raise _RefusedError(Stage.KEY, Reason.KEY_COMPROMISED)
    return key


def _check_time(permit: Permit, trust: TrustStore, now: datetime) -> None:
    leeway = timedelta(seconds=trust.rules.limits.clock_leeway_s)
    if max(permit.not_before, permit.issued_at) > now + leeway:
        begin = _day(permit.not_before, trust)
        raise _RefusedError(Stage.TIME, Reason.NOT_YET_VALID, begin=begin)
    # RFC 7519 section 4.1.4: not "on or after" the expiry.
    if now >= permit.expires_at:
        raise _RefusedError(Stage.TIME, Reason.EXPIRED, until=_last_day(permit, trust))


def _texts(permit: Permit, trust: TrustStore) -> dict[str, str]:
    """Every field of the permit that it has, as text for people."""
    holder = permit.holder
    texts: dict[str, str | None] = {
        "full_name": holder.full_name,
        "latin_name": holder.latin_name,
        "gender": GENDERS[holder.gender],
        "ethnicity": holder.ethnicity,
        "birth_date": holder.birth_date.isoformat(),
        "citizen_id": holder.citizen_id,
        "residence_address": holder.residence_address,
        "residence_division": holder.residence_division,
        "household_division": holder.household_division,
        "household_address": holder.household_address,
        "permit_number": permit_number.display(permit.number),
        "kind": trust.rules.kind(permit.kind).title_zh,
        "authority": permit.authority,
        "issued_on": _day(permit.issued_at, trust),
        "valid_from": _day(permit.not_before, trust),
        "valid_until": _last_day(permit, trust),
    }
    # Control characters could forge lines on a terminal; the issuer refuses them, and so do we.
    return {name: _printable(text) for name, text in texts.items() if text}


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _day(instant: datetime, trust: TrustStore) -> str:
    return instant.astimezone(trust.rules.time_zone).date().isoformat()


def _minute(instant: datetime, trust: TrustStore) -> str:
    return f"{instant.astimezone(trust.rules.time_zone):%Y-%m-%d %H:%M}"


def _last_day(permit: Permit, trust: TrustStore) -> str:
    return _day(permit.expires_at - timedelta(seconds=1), trust)


def _verdict(
    reason: Reason,
    stage: Stage | None,
    age: TrustAge | None,
    values: Mapping[str, str],
    shown: Mapping[str, str] | None = None,
    photo: Photo | None = None,
) -> Verdict:
    english, chinese = sentences(reason, **values)
    stale = age is not None and age.freshness is Freshness.STALE
    return Verdict(
        reason=reason,
        stage=stage,
        message_en=english,
        message_zh=chinese,
        shown=shown or {},
        trust=age,
        warnings=(TRUST_STALE,) if stale else (),
        photo=photo,
    )
