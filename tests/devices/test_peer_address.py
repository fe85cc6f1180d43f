from __future__ import annotations

import pytest

from devices.wire import peer_address


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.5:43210", "10.0.0.5"),
        ("ipv6:%5B::1%5D:43210", "::/64"),
        ("ipv6:[2001:db8:1:2:aaaa::9]:43210", "2001:db8:1:2::/64"),
        ("ipv6:%5Bfe80::1%25eth0%5D:43210", "fe80::/64"),
        ("ipv6:%5B::ffff:10.0.0.5%5D:43210", "10.0.0.5"),
        ("unix:/run/anju.sock", "unix:/run/anju.sock"),
        ("ipv4:nonsense", "ipv4:nonsense"),
        ("", ""),
    ],
)
def test_a_peer_is_its_address_without_the_port(peer: str, address: str) -> None:
    assert peer_address(peer) == address
