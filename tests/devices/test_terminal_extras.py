from __future__ import annotations

import subprocess
import sys

FORBIDDEN = ("faiss", "sqlalchemy", "alembic", "numba", "structlog", "reportlab", "grpc_health")


def test_the_terminal_library_needs_nothing_of_the_service() -> None:
    script = (
        f"import sys\nfor name in {FORBIDDEN}: sys.modules[name] = None\n"
        "import devices.terminal, devices.simulator\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & "
        "{'matcher', 'issuance', 'identity'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_the_terminals_commands_need_nothing_of_the_service() -> None:
    script = (
        f"import sys\nfor name in {FORBIDDEN}: sys.modules[name] = None\n"
        "import identity.cli, identity.terminal_work"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_domain_needs_no_grpc() -> None:
    script = (
        "import sys\nfor name in ('grpc', 'anju', 'google.protobuf'): sys.modules[name] = None\n"
        "import devices.provisioning, devices.authority, devices.credentials"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
