from __future__ import annotations

import hashlib
import random
import zlib

from hypothesis import given
from hypothesis import strategies as st

from issuance import sparse_zlib, status_list
from issuance.types import PermitStatus


@given(
    st.lists(
        st.one_of(
            st.integers(0, 700).map(bytes),
            st.binary(min_size=1, max_size=3),
        ),
        max_size=30,
    ).map(b"".join)
)
def test_any_inflater_reads_what_was_packed(data: bytes) -> None:
    assert zlib.decompress(sparse_zlib.compress(data)) == data


def test_every_byte_and_every_run_length_survives() -> None:
    data = b"".join(bytes([value]) + bytes(value + 1) for value in range(256)) + bytes(1_000)
    assert zlib.decompress(sparse_zlib.compress(data)) == data


def city_list(fraction: float) -> bytes:
    numbers = random.Random(7)
    entries = 1 << 20
    chosen = numbers.sample(range(entries), int(entries * fraction))
    return status_list.make([(index, PermitStatus.REVOKED) for index in chosen]).data


def test_list_of_a_million_permits_is_as_small_as_zlib_makes_it() -> None:
    data = city_list(0.01)
    packed = sparse_zlib.compress(data)
    assert zlib.decompress(packed) == data
    assert len(packed) < 1.15 * len(zlib.compress(data, 9))


def test_packed_bytes_never_change() -> None:
    """Devices in the field rebuild published files from deltas: new bytes would strand them."""
    digest = hashlib.sha256(sparse_zlib.compress(city_list(0.001))).hexdigest()
    assert digest == "98e1c68b4629ea9d120be24252aa1f241163c895432f1e80e2f2ca2c0816fafa"
    assert len(sparse_zlib.compress(b"")) == 48
