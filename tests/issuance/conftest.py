from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from issuance.authority import NewAuthority, init_authority
from issuance.issuer import Issuer
from tests.issuance.kit import RULES, Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authority(tmp_path: Path, clock: Clock) -> NewAuthority:
    return init_authority(tmp_path / "authority", RULES, clock)


@pytest.fixture
def issuer(authority: NewAuthority, clock: Clock) -> Iterator[Issuer]:
    with Issuer.open(authority.directory, clock) as opened:
        yield opened
