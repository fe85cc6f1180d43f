"""Writes the permit vectors beside this file: `python -m tests.vectors.permits.generate`.

Every vector is one scenario: the text of a symbol, the trust bundle and clock to judge it by, and
the verdict that must come out, with the stage that must decide. Keys follow from a fixed seed, and
nothing depends on the clock, so writing them again changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import zlib
from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from issuance import base45, cbor, codec, status_list
from issuance.keys import KeyInfo, KeyUse
from issuance.permit_number import CAPACITY, make
from issuance.permutation import Permutation
from issuance.profile import RESIDENCE, PermitKind, Profile
from issuance.publisher import Publisher
from issuance.signing import Algorithm
from issuance.types import Gender, Holder, Permit, PermitStatus, StatusRef
from tests.issuance.kit import Clock, SeededKeys

START: Final = datetime(2026, 11, 24, 2, 0, 0, tzinfo=UTC)
CHECK: Final = START + timedelta(hours=30)
# Every optional field is carried here, so that what each department is shown can be told apart.
RULES: Final = Profile(
    "https://anju.example.cn",
    "示例市公安局",
    kinds=(
        PermitKind(
            "temporary-residence",
            1,
            "T",
            "暂住证",
            "Temporary Residence Permit",
            carries=frozenset({"residence_address", "residence_division", "household_division"}),
        ),
        RESIDENCE,
    ),
)
HOLDER: Final = Holder(
    full_name="张示例",
    gender=Gender.MALE,
    birth_date=date(1990, 5, 17),
    residence_address="示例街道和平路 100 号 3 幢 2 单元 501 室",
    residence_division="320505",
    household_division="341225",
)
# 48 x 60 grey pixels, WebP: an oval on a light ground. As made by one version of libwebp.
PHOTO: Final = bytes.fromhex(
    "524946466c0000005745425056503820600000007005009d012a30003c003f1d7ab153ad2824a2b7e801a023"
    "89690000ac6e7087ee366e3c63dbb9225d2dbb3c49fad4bd3a956e0000feecdaf27d08d458d3d02e3049c846"
    "03ec31a774473b5fe0176545cfe9791aae0e9feeea7f0895b5680000"
)
REVOKED, SUSPENDED, RESERVED = 700, 701, 702
ENTRIES: Final = 1024


class City:
    """The keys and trust bundles that all vectors share."""

    def __init__(self) -> None:
        self.keys = SeededKeys("permit vectors")
        root_keys = SeededKeys("permit vectors, root")
        life = (START - timedelta(days=1), START + timedelta(days=900))
        root_keys.generate(KeyUse.TRUST_ROOT, Algorithm.EDDSA, *life)
        for use in KeyUse:
            if use not in (KeyUse.PERMIT, KeyUse.TRUST_ROOT):
                self.keys.generate(use, Algorithm.EDDSA, *life)
        month = (START - timedelta(days=1), START + timedelta(days=30))
        self.ed25519 = self.keys.generate(KeyUse.PERMIT, Algorithm.EDDSA, *month)
        self.es256 = self.keys.generate(KeyUse.PERMIT, Algorithm.ES256, *month)
        self.stranger = self.keys.generate(KeyUse.PERMIT, Algorithm.EDDSA, *month)
        self.stolen = self.keys.generate(KeyUse.PERMIT, Algorithm.EDDSA, *month)
        status = next(info for info in self.keys.infos() if info.use is KeyUse.STATUS_LIST)
        self.status_key = status
        stolen = self.keys.mark_compromised(self.stolen.kid, START + timedelta(hours=1))

        entries = status_list.make(
            [(REVOKED, PermitStatus.REVOKED), (SUSPENDED, PermitStatus.SUSPENDED)], ENTRIES
        )
        packed = bytearray(entries.data)
        packed[RESERVED // 4] |= 3 << RESERVED % 4 * 2
        value = {"bits": 2, "lst": zlib.compress(packed, 9)}
        with tempfile.TemporaryDirectory() as directory:
            publisher = Publisher(Path(directory), self.keys, Clock(START))
            publisher.create(root_keys)
            known = [self.ed25519, self.es256, stolen, status]
            self.bundle = publisher.publish(known, RULES, {1: value}).bundle


def permit(city: City, index: int = 5, **changes: Any) -> Permit:
    number = make("T", index, Permutation(city.keys.secret("numbering"), b"permit", CAPACITY))
    fields: dict[str, Any] = {
        "number": number,
        "kind": "temporary-residence",
        "issuer": RULES.issuer,
        "authority": RULES.authority,
        "holder": HOLDER,
        "issued_at": START,
        "not_before": START,
        "expires_at": datetime(2027, 11, 23, 16, 0, tzinfo=UTC),
        "status": StatusRef(1, index),
    }
    return Permit(**{**fields, **changes})


def claims(city: City, index: int = 5, **changes: Any) -> dict[Any, Any]:
    value: dict[Any, Any] = cbor.decode(codec.encode(permit(city, index, **changes), RULES))
    return value


def cose(
    city: City,
    payload: dict[Any, Any] | bytes,
    key: KeyInfo | None = None,
    *,
    protected: dict[Any, Any] | bytes | None = None,
    unprotected: dict[Any, Any] | None = None,
    untagged: bool = False,
    alter: Callable[[list[Any]], None] = lambda parts: None,
) -> bytes:
    """A signed message with any header; `alter` changes its four parts after signing."""
    key = key or city.ed25519
    if protected is None:
        protected = {1: int(key.algorithm), 4: bytes.fromhex(key.kid)}
    raw = protected if isinstance(protected, bytes) else cbor.encode(protected)
    body = payload if isinstance(payload, bytes) else cbor.encode(payload)
    signer = city.keys.signer(key.kid, key.use)
    signature = signer.sign(cbor.encode(["Signature1", raw, b"", body]))
    parts: list[Any] = [raw, unprotected or {}, body, signature]
    alter(parts)
    return cbor.encode(parts if untagged else cbor.Tagged(18, parts))


def text(data: bytes) -> str:
    return base45.encode(zlib.compress(data, 9))


def raw_map(pairs: list[tuple[Any, Any]]) -> bytes:
    """A map of less than 24 pairs, with whatever keys, even twice the same."""
    return bytes([0xA0 | len(pairs)]) + b"".join(cbor.encode(k) + cbor.encode(v) for k, v in pairs)


def changed(value: dict[Any, Any], *path: Any, to: Any = None) -> dict[Any, Any]:
    """A copy with the item at `path` replaced, or removed if `to` is None."""
    copy = deepcopy(value)
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    if to is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    return copy


def flip(part: int, at: int = 10) -> Callable[[list[Any]], None]:
    def alter(parts: list[Any]) -> None:
        changed_part = bytearray(parts[part])
        changed_part[at] ^= 1
        parts[part] = bytes(changed_part)

    return alter


def replace_part(part: int, value: Any) -> Callable[[list[Any]], None]:
    def alter(parts: list[Any]) -> None:
        parts[part] = value

    return alter


def vectors(city: City) -> dict[str, dict[str, Any]]:
    """Name -> vector."""
    made: dict[str, dict[str, Any]] = {}
    good = claims(city)
    good_cose = cose(city, good)
    kid = bytes.fromhex(city.ed25519.kid)

    def add(
        name: str, why: str, data: str | bytes, reason: str, stage: str | None, **more: Any
    ) -> None:
        made[name] = {
            "description": why,
            "text": data if isinstance(data, str) else text(data),
            "trust": "trust.anju",
            "now": CHECK.isoformat(),
            "purpose": "general",
            "expected": {"reason": reason, "stage": stage},
            **more,
        }

    def valid(name: str, why: str, data: bytes, **more: Any) -> None:
        add(name, why, data, "VALID", None, **more)

    # Accepted: as we write it, and in the forms that others write.
    valid("valid-ed25519", "as issued, Ed25519", good_cose)
    valid("valid-es256", "as issued, ES256", cose(city, good, city.es256))
    valid(
        "valid-tag-61",
        "CWT tag around the message",
        cbor.encode(cbor.Tagged(61, cbor.decode(good_cose))),
    )
    valid("valid-untagged", "no tag at all", cose(city, good, untagged=True))
    valid(
        "valid-unprotected-kid",
        "kid in the unprotected header",
        cose(city, good, protected={1: -8}, unprotected={4: kid}),
    )
    valid(
        "valid-critical-kid",
        "crit names a header that is understood",
        cose(city, good, protected={1: -8, 2: [4], 4: kid}),
    )
    valid(
        "valid-wrapped-169",
        "claim 169 as a byte string, as in the specification's example",
        cose(city, changed(good, 169, to=cbor.encode(good[169]))),
    )
    valid("valid-gender-text", "gender as text", cose(city, changed(good, 169, 9, to="Male")))
    valid(
        "valid-dashed-date",
        "date of birth with dashes",
        cose(city, changed(good, 169, 8, to="1990-05-17")),
    )
    valid(
        "valid-unknown-attribute",
        "an attribute nobody knows is ignored",
        cose(city, changed(good, 169, 49, to="future")),
    )
    valid("valid-no-sub", "no subject claim", cose(city, changed(good, 2)))
    valid(
        "valid-last-second",
        "one second before the expiry, with trust of that day",
        cose(city, claims(city, expires_at=CHECK + timedelta(seconds=1))),
    )
    valid(
        "valid-purpose",
        "a department among the permit's uses",
        cose(city, claims(city, uses=("housing", "tax"))),
        purpose="tax",
    )
    valid(
        "valid-stale-trust",
        "trust three days old: accepted with a warning",
        good_cose,
        now=(START + timedelta(days=3)).isoformat(),
    )

    valid(
        "valid-leeway",
        "begins four minutes from now: clocks differ",
        cose(city, claims(city, not_before=CHECK + timedelta(minutes=4))),
    )

    # Photographs: shown where they are understood, and never a reason to refuse.
    def with_photo(name: str, why: str, face: Any, photo: bytes | None) -> None:
        digest = photo and hashlib.sha256(photo).hexdigest()
        data = cose(city, changed(good, 169, 62, to=face))
        valid(name, why, data, photo_sha256=digest)

    with_photo("valid-photo", "a photograph", [{0: PHOTO, 1: 0, 2: 4}], PHOTO)
    with_photo("valid-photo-bare", "as in the specification's example", {0: PHOTO, 2: 4}, PHOTO)
    with_photo("valid-photo-first", "two: the first", [{0: PHOTO, 1: 0, 2: 4}, {0: b"x"}], PHOTO)
    with_photo("valid-photo-avif", "of a kind that is not shown", [{0: PHOTO, 1: 0, 2: 3}], None)
    with_photo("valid-photo-template", "a face template", [{0: PHOTO, 1: 1, 2: 0}], None)
    with_photo("valid-photo-huge", "of 2049 bytes", [{0: bytes(2049), 1: 0, 2: 4}], None)
    with_photo("valid-photo-text", "text in its place", "photo", None)
    with_photo("valid-photo-empty", "no photograph in the list", [], None)

    # Read.
    add("read-empty", "nothing", "", "NOT_A_PERMIT", "read")
    add(
        "read-url",
        "a web address in a QR symbol",
        "https://example.org/pay",
        "NOT_A_PERMIT",
        "read",
    )
    add(
        "read-base45-overflow",
        "digits that exceed two bytes",
        ":::" + text(good_cose),
        "NOT_A_PERMIT",
        "read",
    )
    add(
        "read-base45-left-over",
        "one digit too many",
        text(good_cose) + "0" if len(text(good_cose)) % 3 == 0 else text(good_cose)[:-1],
        "NOT_A_PERMIT",
        "read",
    )
    add(
        "read-not-zlib",
        "base45 of the message itself",
        base45.encode(good_cose),
        "NOT_A_PERMIT",
        "read",
    )
    damaged = bytearray(zlib.compress(good_cose, 9))
    damaged[-1] ^= 1
    add("read-zlib-checksum", "wrong Adler-32", base45.encode(bytes(damaged)), "MALFORMED", "read")
    add(
        "read-zlib-cut",
        "the end is missing",
        base45.encode(zlib.compress(good_cose, 9)[:-9]),
        "MALFORMED",
        "read",
    )
    add(
        "read-zlib-trailing",
        "bytes after the zlib stream",
        base45.encode(zlib.compress(good_cose, 9) + b"more"),
        "MALFORMED",
        "read",
    )
    add(
        "read-zlib-bomb",
        "two kilobytes that stand for two megabytes",
        base45.encode(zlib.compress(bytes(2_000_000), 9)),
        "TOO_LARGE",
        "read",
    )
    add("read-too-long", "more than the largest symbol holds", "A" * 4_297, "TOO_LARGE", "read")

    # Parse.
    add("parse-not-cbor", "a reserved initial byte", b"\x1c" * 30, "MALFORMED", "parse")
    add("parse-not-cose", "a CBOR map", cbor.encode(good), "NOT_A_PERMIT", "parse")
    add(
        "parse-encrypted",
        "a COSE_Encrypt0 message",
        cbor.encode(cbor.Tagged(16, [b"\xa1\x01\x03", {5: bytes(12)}, bytes(60)])),
        "NOT_A_PERMIT",
        "parse",
    )
    add("parse-cut", "the message ends early", good_cose[:-20], "MALFORMED", "parse")
    add("parse-trailing", "a byte after the message", good_cose + b"\x00", "MALFORMED", "parse")
    add("parse-deep", "two hundred nested arrays", b"\x81" * 200 + b"\x00", "MALFORMED", "parse")
    add(
        "parse-indefinite",
        "an array of indefinite length",
        b"\xd2\x9f" + good_cose[2:] + b"\xff",
        "MALFORMED",
        "parse",
    )
    add(
        "parse-detached",
        "no payload inside",
        cose(city, good, alter=replace_part(2, None)),
        "MALFORMED",
        "parse",
    )
    add(
        "parse-duplicate-alg",
        "the algorithm twice in the protected header",
        cose(city, good, protected=raw_map([(1, -8), (1, -7), (4, kid)])),
        "DUPLICATE_KEY",
        "parse",
    )
    add(
        "parse-both-buckets",
        "kid protected and unprotected",
        cose(city, good, unprotected={4: kid}),
        "DUPLICATE_KEY",
        "parse",
    )
    add(
        "parse-critical-unknown",
        "crit demands a header that nobody here acts on",
        cose(city, good, protected={1: -8, 2: [70], 4: kid, 70: 1}),
        "UNSUPPORTED_CRITICAL",
        "parse",
    )
    add(
        "parse-critical-text",
        "crit demands a private header",
        cose(city, good, protected={1: -8, 2: ["x"], 4: kid, "x": 1}),
        "UNSUPPORTED_CRITICAL",
        "parse",
    )
    add(
        "parse-critical-absent",
        "crit names a header that is not there",
        cose(city, good, protected={1: -8, 2: [16], 4: kid}),
        "MALFORMED",
        "parse",
    )
    add(
        "parse-critical-empty",
        "crit without labels",
        cose(city, good, protected={1: -8, 2: [], 4: kid}),
        "MALFORMED",
        "parse",
    )
    add(
        "parse-critical-unprotected",
        "crit where anybody can change it",
        cose(city, good, unprotected={2: [4]}),
        "MALFORMED",
        "parse",
    )
    add("parse-no-alg", "no algorithm", cose(city, good, protected={4: kid}), "MALFORMED", "parse")
    add(
        "parse-unprotected-alg",
        "the algorithm where anybody can change it",
        cose(city, good, protected={4: kid}, unprotected={1: -8}),
        "MALFORMED",
        "parse",
    )
    add(
        "parse-unsupported-alg",
        "an RSA algorithm",
        cose(city, good, protected={1: -37, 4: kid}),
        "UNSUPPORTED_ALGORITHM",
        "parse",
    )
    add(
        "parse-mac-alg",
        "HMAC: nobody may take a public key for a secret",
        cose(city, good, protected={1: 5, 4: kid}),
        "UNSUPPORTED_ALGORITHM",
        "parse",
    )

    # Trust.
    add(
        "trust-clock-behind",
        "the clock is six minutes before the publication",
        good_cose,
        "CLOCK_BEFORE_TRUST",
        "trust",
        now=(START - timedelta(minutes=6)).isoformat(),
    )
    add(
        "trust-clock-at-floor",
        "a later time was seen on this device",
        good_cose,
        "CLOCK_BEFORE_TRUST",
        "trust",
        floor=(CHECK + timedelta(days=1)).isoformat(),
    )
    add(
        "trust-too-old",
        "a second beyond fourteen days",
        good_cose,
        "TRUST_TOO_OLD",
        "trust",
        now=(START + timedelta(days=14, seconds=1)).isoformat(),
    )

    # Key.
    add(
        "key-unknown",
        "signed by a key that is not in the bundle",
        cose(city, good, city.stranger),
        "UNKNOWN_KEY",
        "key",
    )
    add("key-none", "no kid", cose(city, good, protected={1: -8}), "UNKNOWN_KEY", "key")
    add(
        "key-wrong-use",
        "signed by the status-list key",
        cose(city, good, city.status_key),
        "WRONG_KEY_USE",
        "key",
    )
    add(
        "key-wrong-alg",
        "ES256 claimed for an Ed25519 key",
        cose(city, good, protected={1: -7, 4: kid}),
        "ALGORITHM_MISMATCH",
        "key",
    )
    add(
        "key-compromised",
        "dated before the theft, but a thief can do that",
        cose(city, good, city.stolen),
        "KEY_COMPROMISED",
        "key",
    )

    # Signature.
    add(
        "signature-payload",
        "a bit of the claims changed",
        cose(city, good, alter=flip(2, 40)),
        "BAD_SIGNATURE",
        "signature",
    )
    add(
        "signature-bit",
        "a bit of the signature changed",
        cose(city, good, alter=flip(3)),
        "BAD_SIGNATURE",
        "signature",
    )
    add(
        "signature-short",
        "63 bytes",
        cose(city, good, alter=replace_part(3, bytes(63))),
        "BAD_SIGNATURE",
        "signature",
    )
    add(
        "signature-empty",
        "no signature",
        cose(city, good, alter=replace_part(3, b"")),
        "BAD_SIGNATURE",
        "signature",
    )
    add(
        "signature-other-key",
        "signed by a stranger in the name of a known key",
        cose(city, good, city.stranger, protected={1: -8, 4: kid}),
        "BAD_SIGNATURE",
        "signature",
    )
    add(
        "signature-es256-zero",
        "r = s = 0",
        cose(city, good, city.es256, alter=replace_part(3, bytes(64))),
        "BAD_SIGNATURE",
        "signature",
    )

    # Claims.
    items = sorted(good.items())
    add("claims-not-cbor", "the payload is text", cose(city, b"not cbor"), "MALFORMED", "claims")
    add(
        "claims-no-169",
        "a CWT about something else",
        cose(city, changed(good, 169)),
        "NOT_A_PERMIT",
        "claims",
    )
    add(
        "claims-duplicate-exp",
        "two expiries: libraries take the last",
        cose(city, raw_map([*items, (4, good[4] + 86_400 * 3650)])),
        "DUPLICATE_KEY",
        "claims",
    )
    add(
        "claims-duplicate-attribute",
        "two names",
        cose(city, changed(good, 169, to=raw_map([*sorted(good[169].items()), (4, "李示例")]))),
        "DUPLICATE_KEY",
        "claims",
    )
    add("claims-no-exp", "valid for ever", cose(city, changed(good, 4)), "MISSING_EXPIRY", "claims")
    add(
        "claims-text-exp",
        "the expiry as text",
        cose(city, changed(good, 4, to="2099")),
        "MALFORMED",
        "claims",
    )
    add(
        "claims-wrong-issuer",
        "another city's",
        cose(city, changed(good, 1, to="https://anju.other.example")),
        "WRONG_ISSUER",
        "claims",
    )
    add(
        "claims-too-long",
        "ten years",
        cose(city, changed(good, 4, to=good[5] + 3650 * 86_400)),
        "VALIDITY_TOO_LONG",
        "claims",
    )
    add(
        "claims-unknown-kind",
        "a kind the profile does not have",
        cose(city, changed(good, 169, 24, to=9)),
        "NOT_A_PERMIT",
        "claims",
    )
    add(
        "claims-other-credential",
        "a Claim 169 credential that is no permit",
        cose(city, changed(changed(good, 169, 24), 169, 25)),
        "NOT_A_PERMIT",
        "claims",
    )
    number: str = good[169][1]
    swapped = number[:3] + number[4] + number[3] + number[5:]
    assert swapped != number
    add(
        "claims-check-digits",
        "two digits of the permit number swapped",
        cose(city, changed(changed(good, 169, 1, to=swapped), 2, to=swapped)),
        "MALFORMED",
        "claims",
    )
    add(
        "claims-other-subject",
        "the subject is another permit",
        cose(city, changed(good, 2, to=claims(city, 6)[2])),
        "MALFORMED",
        "claims",
    )
    add(
        "claims-no-status",
        "no status reference: it could never be revoked",
        cose(city, changed(good, 65535)),
        "MALFORMED",
        "claims",
    )
    add(
        "claims-foreign-status",
        "a status list under the forger's own name",
        cose(city, changed(good, 65535, "status_list", "uri", to="https://evil.example/status/1")),
        "MALFORMED",
        "claims",
    )
    add(
        "claims-gender",
        "a gender the table does not have",
        cose(city, changed(good, 169, 9, to=4)),
        "MALFORMED",
        "claims",
    )
    add(
        "claims-birth-date",
        "the thirtieth of February",
        cose(city, changed(good, 169, 8, to="19900230")),
        "MALFORMED",
        "claims",
    )
    add(
        "claims-key-period",
        "dated before the key began to sign",
        cose(city, claims(city, issued_at=START - timedelta(days=2), not_before=START)),
        "KEY_OUT_OF_PERIOD",
        "claims",
    )

    # Time.
    add(
        "time-not-yet",
        "valid from tomorrow",
        cose(
            city,
            claims(
                city, not_before=CHECK + timedelta(days=1), expires_at=CHECK + timedelta(days=2)
            ),
        ),
        "NOT_YET_VALID",
        "time",
    )
    add(
        "time-expired-now",
        "the very second of the expiry",
        cose(city, claims(city, expires_at=CHECK)),
        "EXPIRED",
        "time",
    )
    add(
        "time-expired",
        "an hour after the expiry",
        cose(city, claims(city, expires_at=CHECK - timedelta(hours=1))),
        "EXPIRED",
        "time",
    )

    add(
        "time-beyond-leeway",
        "begins six minutes from now",
        cose(city, claims(city, not_before=CHECK + timedelta(minutes=6))),
        "NOT_YET_VALID",
        "time",
    )

    # Status.
    add("status-revoked", "revoked", cose(city, claims(city, REVOKED)), "REVOKED", "status")
    add("status-suspended", "suspended", cose(city, claims(city, SUSPENDED)), "SUSPENDED", "status")
    add(
        "status-reserved",
        "a value without a meaning",
        cose(city, claims(city, RESERVED)),
        "STATUS_UNKNOWN",
        "status",
    )
    add(
        "status-beyond",
        "an index beyond the list",
        cose(city, claims(city, ENTRIES)),
        "STATUS_UNKNOWN",
        "status",
    )
    add(
        "status-unknown-list",
        "a list that the bundle does not have yet",
        cose(city, claims(city, status=StatusRef(2, 5))),
        "STATUS_UNKNOWN",
        "status",
    )

    # Purpose.
    add(
        "purpose-not-allowed",
        "shown to a department that is not among its uses",
        cose(city, claims(city, uses=("housing",))),
        "PURPOSE_NOT_ALLOWED",
        "purpose",
        purpose="tax",
    )
    return made


def write(directory: Path) -> None:
    """Write every vector and the trust bundle into `directory`."""
    city = City()
    (directory / "trust.anju").write_bytes(city.bundle)
    for name, vector in vectors(city).items():
        body = json.dumps(vector, ensure_ascii=False, indent=1) + "\n"
        (directory / f"{name}.json").write_text(body, "utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
