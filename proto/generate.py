"""Generate the Python stubs of ``anju.v1`` beside their ``.proto`` files.

Run as ``make protos``. With ``--out DIR`` they go elsewhere, so that a test can compare.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent


def generate(out: Path) -> None:
    """Write ``*_pb2.py``, ``*_pb2_grpc.py`` and their type stubs below ``out/anju/v1``.

    Raises:
        RuntimeError: protoc refused the contract; its own words are on stderr.
    """
    # protoc finds the mypy plugins on PATH; they live beside this interpreter.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    builtin = Path(grpc_tools.__file__).parent / "_proto"
    sources = sorted(str(path) for path in (ROOT / "anju" / "v1").glob("*.proto"))
    status = protoc.main(
        [
            "protoc",
            f"-I{ROOT}",
            f"-I{builtin}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out=quiet:{out}",
            f"--mypy_grpc_out=quiet:{out}",
            *sources,
        ]
    )
    if status:
        raise RuntimeError(f"protoc ended with status {status}")


if __name__ == "__main__":
    out_dir = Path(sys.argv[2]) if sys.argv[1:2] == ["--out"] else ROOT
    generate(out_dir)
