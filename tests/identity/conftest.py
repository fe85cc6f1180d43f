from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.identity.kit import Templates, World, build_world, make_templates


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    return make_templates(tmp_path_factory.mktemp("made"))


@pytest.fixture
def world(made: Templates, tmp_path: Path) -> Iterator[World]:
    built = build_world(made, tmp_path)
    yield built
    built.database.close()
    built.issuer.close()
