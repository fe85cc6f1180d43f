"""Runs the server in the foreground: structured logs on stderr, a clean stop on SIGTERM."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

import structlog

from identity.app import Server, open_installation


def run(directory: Path) -> None:
    """Serve until SIGTERM or SIGINT. Raises what opening the installation raises."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    asked = threading.Event()

    def ask_to_stop(_number: int, _frame: FrameType | None) -> None:
        asked.set()

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    with open_installation(directory) as installation:
        server = Server(installation)
        server.start()
        asked.wait()
        server.stop()
