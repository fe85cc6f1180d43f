"""A server in a process of its own: for the demonstration, benchmarks and crash tests."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from identity.config import DEFAULT_TOML, ObservabilityConfig, ServerConfig
from identity.errors import UnavailableError

START_S = 240.0  # the first start on a machine compiles the numeric kernels
STOP_S = 60.0


@dataclass(frozen=True)
class ServerProcess:
    """A running ``anju serve``.

    Attributes:
        process: for signals; its stderr is copied to the working directory's ``server.log``.
        serving: the log entry with which it announced itself (address, references, replayed, …).
    """

    process: subprocess.Popen[str]
    serving: dict[str, Any]


def loopback_toml() -> tuple[str, str]:
    """The default configuration on free loopback ports, and its provisioning address.

    Metrics are served on a port that the system chooses and the log tells.

    Several servers can run side by side; nobody else is reached.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        main, provisioning = (f"127.0.0.1:{one.getsockname()[1]}" for one in sockets)
    defaults = ServerConfig()
    toml = DEFAULT_TOML.replace(defaults.address, main)
    # A few simulated terminals stand for a city's.
    quota = f"terminal_calls_per_minute = {defaults.terminal_calls_per_minute}"
    toml = toml.replace(quota, "terminal_calls_per_minute = 0")
    toml = toml.replace(ObservabilityConfig().metrics_address, "127.0.0.1:0")
    return toml.replace(defaults.provisioning_address, provisioning), provisioning


@contextlib.contextmanager
def serving(directory: Path) -> Iterator[ServerProcess]:
    """Run ``anju serve DIRECTORY`` until the block ends.

    Raises:
        UnavailableError: SERVER_NOT_STARTED, naming the log.
    """
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and files
        [sys.executable, "-m", "identity", "serve", str(directory)],
        stderr=subprocess.PIPE,
        text=True,
    )
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    log = directory / "server.log"
    reader = threading.Thread(target=_copy_lines, args=(process, lines, log), daemon=True)
    reader.start()
    try:
        yield ServerProcess(process, _wait_until_serving(process, lines, log))
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join(timeout=10)


def _copy_lines(process: subprocess.Popen[str], lines: queue.SimpleQueue[str], log: Path) -> None:
    if process.stderr is not None:
        with log.open("a", encoding="utf-8") as file, process.stderr:
            for line in process.stderr:
                file.write(line)
                file.flush()
                lines.put(line)
    lines.put("")


def _wait_until_serving(
    process: subprocess.Popen[str], lines: queue.SimpleQueue[str], log: Path
) -> dict[str, Any]:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            line = lines.get(timeout=1.0)
        except queue.Empty:
            continue
        if not line:
            break
        if '"event": "serving"' in line:
            entry: dict[str, Any] = json.loads(line)
            return entry
    raise UnavailableError(
        "SERVER_NOT_STARTED", f"the server did not start (exit {process.poll()}); see {log}"
    )
