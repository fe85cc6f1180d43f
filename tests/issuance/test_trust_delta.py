"""Deltas lead to the very bundle that was published, or to an error and nothing else."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from issuance import bundle, cbor, delta, status_list
from issuance.authority import NewAuthority
from issuance.errors import RollbackError, TrustError
from issuance.issuer import Issuer
from issuance.key_files import FileKeyStore
from issuance.keys import KeyUse
from issuance.publisher import Publisher
from issuance.signing import Algorithm
from issuance.trust import TrustStore
from issuance.types import PermitStatus, StatusRef
from tests.issuance.kit import HOLDER, RULES, START, Clock


def test_delta_makes_the_published_bundle_out_of_the_old_one(issuer: Issuer, clock: Clock) -> None:
    refs = [issuer.issue(HOLDER).status for _ in range(6)]
    issuer.suspend(refs[0])
    issuer.suspend(refs[1])
    old = issuer.publish_trust().bundle
    clock.advance(days=1)
    issuer.reinstate(refs[0])
    issuer.revoke(refs[1])
    issuer.revoke(refs[2])
    new = issuer.publish_trust().bundle
    made = delta.make(old, new)
    assert delta.apply(old, made.data) == new
    assert len(made.data) < 3_000
    trust = TrustStore.load(delta.apply(old, made.data), TrustStore.load(old).memory)
    assert [trust.status(ref) for ref in refs[:4]] == [
        PermitStatus.VALID,
        PermitStatus.REVOKED,
        PermitStatus.REVOKED,
        PermitStatus.VALID,
    ]


def test_one_delta_serves_every_version_in_between(issuer: Issuer, clock: Clock) -> None:
    bundles = [issuer.publish_trust().bundle]
    for _ in range(4):
        clock.advance(hours=5)
        issuer.revoke(issuer.issue(HOLDER).status)
        bundles.append(issuer.publish_trust().bundle)
    made = delta.make(bundles[0], bundles[-1])
    for old in bundles:
        assert delta.apply(old, made.data) == bundles[-1]
    with pytest.raises(TrustError) as caught:
        delta.apply(bundles[0], delta.make(bundles[1], bundles[-1]).data)
    assert caught.value.reason == "DELTA_UNFIT"
    assert "is here" in str(caught.value), "noticed before any work is done"
    with pytest.raises(TrustError):
        delta.make(bundles[1], bundles[0])


def test_new_list_and_new_key_travel_in_a_delta(authority: NewAuthority, clock: Clock) -> None:
    keys = FileKeyStore(authority.directory / "keys")
    publisher = Publisher(authority.directory / "trust", keys, clock)

    def publish(lists: int) -> bytes:
        uses = (KeyUse.PERMIT, KeyUse.STATUS_LIST)
        known = [info for info in keys.infos() if info.use in uses]
        value = status_list.to_value(status_list.make([(5, PermitStatus.REVOKED)]))
        return publisher.publish(known, RULES, dict.fromkeys(range(1, lists + 1), value)).bundle

    old = publish(1)
    keys.generate(KeyUse.PERMIT, Algorithm.ES256, START, START + timedelta(days=31))
    new = publish(3)
    made = delta.make(old, new)
    assert delta.apply(old, made.data) == new
    assert TrustStore.load(new).status(StatusRef(3, 5)) is PermitStatus.REVOKED
    # The third list is two numbers in a delta, not the 300 bytes it has when empty.
    assert len(made.data) < len(new) - 1_000


def test_day_of_a_city_of_ten_million_fits_ten_kilobytes(
    authority: NewAuthority, clock: Clock
) -> None:
    """Issue 4: 300 revocations a day, on the day on which the permit key changes as well."""
    keys = FileKeyStore(authority.directory / "keys")
    for month in range(1, 13):
        begin = START - timedelta(days=31 * month)
        keys.generate(KeyUse.PERMIT, Algorithm.EDDSA, begin, begin + timedelta(days=31))
    publisher = Publisher(authority.directory / "trust", keys, clock)
    numbers = random.Random(4)
    entries = status_list.ENTRIES
    lists = [
        dict.fromkeys(numbers.sample(range(entries), entries // 100), PermitStatus.REVOKED)
        for _ in range(10)
    ]

    def publish() -> bytes:
        uses = (KeyUse.PERMIT, KeyUse.STATUS_LIST)
        known = [info for info in keys.infos() if info.use in uses]
        values = {
            number: status_list.to_value(status_list.make(statuses.items()))
            for number, statuses in enumerate(lists, start=1)
        }
        return publisher.publish(known, RULES, values).bundle

    old = publish()
    assert len(old) < 250_000
    clock.advance(days=1)
    for _ in range(300):
        lists[numbers.randrange(10)][numbers.randrange(entries)] = PermitStatus.REVOKED
    keys.generate(KeyUse.PERMIT, Algorithm.EDDSA, START, START + timedelta(days=31))
    new = publish()
    made = delta.make(old, new)
    assert len(made.data) < 10_000
    assert delta.apply(old, made.data) == new


def test_issuer_offers_a_delta_for_what_it_remembers(issuer: Issuer, clock: Clock) -> None:
    first = issuer.publish_trust()
    clock.advance(hours=7)
    issuer.publish_trust()
    second = issuer.publish_trust()
    for known in (first.version, second.version):
        offered = issuer.trust_delta(known)
        assert offered is not None
        assert offered.version == second.version
    offered = issuer.trust_delta(first.version)
    assert offered is not None
    assert delta.apply(first.bundle, offered.data) == second.bundle
    assert issuer.trust_delta(0) is None
    for _ in range(20):
        clock.advance(days=1)
        issuer.publish_trust()
    assert issuer.trust_delta(first.version) is None, "older than a verifier may be"


def test_delta_files_lie_beside_the_bundle(
    issuer: Issuer, clock: Clock, authority: NewAuthority
) -> None:
    versions = {}
    for day in range(16):
        clock.advance(days=1)
        issuer.revoke(issuer.issue(HOLDER).status)
        versions[day] = issuer.publish_trust(deltas=True)
    folder = authority.directory / "trust" / "deltas"
    index = json.loads((folder / "index.json").read_bytes())["deltas"]
    assert {f"{entry['since']}.anju-delta" for entry in index} | {"index.json"} == {
        path.name for path in folder.iterdir()
    }
    assert [entry["since"] for entry in index] == [versions[day].version for day in (1, 8, 14)]
    for day, since in ((1, 1), (5, 1), (8, 8), (13, 8), (14, 14)):
        data = (folder / f"{versions[since].version}.anju-delta").read_bytes()
        assert delta.apply(versions[day].bundle, data) == versions[15].bundle


def test_history_is_found_again_after_a_restart(authority: NewAuthority, clock: Clock) -> None:
    with Issuer.open(authority.directory, clock) as before:
        old = before.publish_trust()
    with Issuer.open(authority.directory, clock) as after:
        after.revoke(after.issue(HOLDER).status)
        new = after.publish_trust()
        made = after.trust_delta(old.version)
    assert made is not None
    assert delta.apply(old.bundle, made.data) == new.bundle


@pytest.fixture
def pair(issuer: Issuer, clock: Clock) -> tuple[bytes, bytes, bytes]:
    """An old bundle, the delta, and the bundle it leads to."""
    old = issuer.publish_trust().bundle
    clock.advance(days=1)
    issuer.revoke(issuer.issue(HOLDER).status)
    new = issuer.publish_trust().bundle
    return old, delta.make(old, new).data, new


def test_delta_applied_twice_changes_nothing(pair: tuple[bytes, bytes, bytes]) -> None:
    old, made, new = pair
    assert delta.apply(delta.apply(old, made), made) == new


def test_damaged_delta_is_an_error_at_every_cut_and_flip(pair: tuple[bytes, bytes, bytes]) -> None:
    old, made, new = pair
    cuts = [made[:length] for length in range(0, len(made), 37)]
    flips = []
    for at in range(0, len(made), 11):
        changed = bytearray(made)
        changed[at] ^= 1
        flips.append(bytes(changed))
    for data in (*cuts, *flips, made + b"x", new, b"\x78\xda" + bytes(100)):
        with pytest.raises(TrustError) as caught:
            delta.apply(old, data)
        assert caught.value.reason in ("NOT_A_DELTA", "DELTA_UNFIT")


def altered(made: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    document = cbor.decode(zlib.decompress(made))
    change(document)
    return zlib.compress(cbor.encode(document))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["lists"][0].__setitem__(5, b"\xff" * 9),
        lambda d: d["lists"][0].__setitem__(5, b"\xff\xff\xff\x7f" * 9),
        lambda d: d["lists"][0].__setitem__(5, b"\x80"),
        lambda d: d["lists"][0].__setitem__(2, b""),
        lambda d: d["lists"].append(["x", 9, b"", b"", 1 << 40, b""]),
        lambda d: d["lists"].append(["x", 9, b"", b"", -1, b""]),
        lambda d: d["lists"].append(["x", 9]),
        lambda d: d["keep"].append("metadata/9.root.json"),
        lambda d: d["keep"].append(7),
        lambda d: d["files"].update({"targets/evil": b"x"}),
        lambda d: d["files"].update({"targets/evil": 1}),
        lambda d: d.update(format=2),
        lambda d: d.update(since="1"),
        lambda d: d.pop("sha256"),
    ],
)
def test_altered_delta_never_makes_a_bundle(
    pair: tuple[bytes, bytes, bytes], change: Callable[[dict[str, Any]], None]
) -> None:
    old, made, _ = pair
    with pytest.raises(TrustError) as caught:
        delta.apply(old, altered(made, change))
    assert caught.value.reason in ("NOT_A_DELTA", "DELTA_UNFIT")


def test_delta_of_a_liar_leads_to_a_bundle_that_is_refused(
    pair: tuple[bytes, bytes, bytes],
) -> None:
    """Whoever makes up a delta and its hash still cannot sign what comes out."""
    old, _, new = pair
    files = bundle.unpack(new)
    (name,) = (name for name in files if name.startswith("targets/status/"))
    forged = bundle.pack({**files, name: files[name][:-1] + bytes([files[name][-1] ^ 1])})
    lie = delta.make(old, forged)
    result = delta.apply(old, lie.data)
    assert result == forged
    with pytest.raises(TrustError) as caught:
        TrustStore.load(result, TrustStore.load(old).memory)
    assert caught.value.reason == "BAD_TRUST"


def test_delta_cannot_lead_back_behind_what_was_seen(issuer: Issuer) -> None:
    old, middle, new = (issuer.publish_trust().bundle for _ in range(3))
    seen = TrustStore.load(new).memory
    with pytest.raises(RollbackError):
        TrustStore.load(delta.apply(old, delta.make(old, middle).data), seen)


def test_delta_is_bounded_before_it_is_unpacked(pair: tuple[bytes, bytes, bytes]) -> None:
    for data in (zlib.compress(bytes(5 << 20), 9), bytes(2 << 20), b"\x78\xda" + bytes(2 << 20)):
        with pytest.raises(TrustError) as caught:
            delta.apply(pair[0], data)
        assert caught.value.reason == "NOT_A_DELTA"


@settings(max_examples=60)
@given(
    st.sampled_from([1, 2, 4, 8]),
    st.dictionaries(st.integers(0, 511), st.integers(0, 255), max_size=40),
    st.dictionaries(st.integers(0, 511), st.integers(0, 255), max_size=40),
)
def test_changes_between_any_two_lists_are_exact(
    bits: int, before: dict[int, int], after: dict[int, int]
) -> None:
    def make(values: dict[int, int]) -> status_list.StatusList:
        data = bytearray(512 * bits // 8)
        for index, value in values.items():
            bit = index * bits
            data[bit >> 3] |= (value & (1 << bits) - 1) << (bit & 7)
        return status_list.StatusList(bits, bytes(data))

    old, new = make(before), make(after)
    assert delta._set(old, delta._pack_changes(old, new)) == new.data
