from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.identity.kit import Templates, World, build_world, make_templates

# A server that runs in the test's process logs beside what a command prints, not among it.
structlog.configure(logger_factory=structlog.WriteLoggerFactory(sys.__stderr__))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    return make_templates(tmp_path_factory.mktemp("made"))


@pytest.fixture
def world(made: Templates, tmp_path: Path) -> Iterator[World]:
    built = build_world(made, tmp_path)
    yield built
    built.database.close()
    built.issuer.close()
