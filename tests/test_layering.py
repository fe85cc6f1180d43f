"""Imports point one way: ``anju.v1`` <- the three leaves <- ``identity``, and nothing else."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LEAVES = ("devices", "issuance", "matcher")
PACKAGES = (*LEAVES, "identity")
WIRE = ("anju", "grpc", "grpc_status", "grpc_health", "grpc_reflection", "google")
WIRE_FILES = ("wire.py", "servicer.py")
# What a department that only verifies need not have.
SERVICE_ONLY = (
    "alembic",
    "faiss",
    "google.protobuf",
    "grpc",
    "numba",
    "numpy",
    "prometheus_client",
    "reportlab",
    "sqlalchemy",
    "structlog",
)


def modules_of(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, f"{package} has no modules; is the test looking in the right place?"
    return found


def imported_names(path: Path, source: str | None = None) -> Iterator[str]:
    """Absolute names of everything a module imports, at any depth and under TYPE_CHECKING too."""
    tree = ast.parse(path.read_text(encoding="utf-8") if source is None else source)
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *([node.module] if node.module else [])))
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def top(name: str) -> str:
    return name.partition(".")[0]


def test_the_reader_of_imports_sees_every_form() -> None:
    source = """
import grpc, matcher.index
from anju.v1 import common_pb2
def later():
    from issuance import cli
if TYPE_CHECKING:
    from .wire import x
    from .. import devices
"""
    found = set(imported_names(ROOT / "matcher" / "sub" / "module.py", source))
    assert {"grpc", "matcher.index", "anju.v1.common_pb2", "issuance.cli"} <= found
    assert {"matcher.sub.wire.x", "matcher.devices"} <= found


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_leaf_imports_neither_its_siblings_nor_identity(leaf: str) -> None:
    others = set(PACKAGES) - {leaf}
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules_of(leaf)
        for name in imported_names(path)
        if top(name) in others
    }
    assert not wrong


@pytest.mark.parametrize("leaf", LEAVES)
def test_inside_a_leaf_only_wire_and_servicer_know_grpc(leaf: str) -> None:
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules_of(leaf)
        if path.name not in WIRE_FILES
        for name in imported_names(path)
        if top(name) in WIRE
    }
    assert not wrong


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_that_ships_imports_tests_or_benchmarks(package: str) -> None:
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules_of(package)
        for name in imported_names(path)
        if top(name) in ("tests", "benchmarks", "pytest", "hypothesis")
    }
    assert not wrong


def test_the_contract_imports_none_of_the_packages() -> None:
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules_of("proto/anju")
        for name in imported_names(path)
        if top(name) in PACKAGES
    }
    assert not wrong


@pytest.mark.parametrize("module", ["issuance.verifier", "issuance.cli", "identity.cli"])
def test_the_verifier_and_its_command_start_without_the_services_dependencies(module: str) -> None:
    code = f"""
import sys
for name in {SERVICE_ONLY!r}:
    sys.modules[name] = None
import {module}
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
