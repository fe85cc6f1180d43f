"""The server's log: one JSON object a line on stderr, or lines for a person's eyes.

Our own code logs ids, types and figures. What libraries log may quote what they were working on (an
exception's text, a statement's parameters), so of their messages only the place and the type of the
error are kept. gRPC's core, which is C++, writes to the file descriptor itself; see
:class:`NativeLog`.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import re
import sys
import threading
from typing import TextIO

import structlog

from identity.observability import metrics

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}

log = structlog.get_logger("anju.dependencies")


def configure(level: str, log_format: str, stream: TextIO) -> None:
    """Log to a stream from now on, in the whole process.

    Args:
        level: one of LEVELS; the least that is logged.
        log_format: "json" or "console".
    """
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(stream),
    )
    logging.basicConfig(handlers=[_Libraries()], level=logging.WARNING, force=True)


class _Libraries(logging.Handler):
    """What libraries log, without its text."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[0] if record.exc_info else None
        log.log(
            record.levelno,
            "library message",
            logger=record.name,
            place=f"{record.module}:{record.funcName}:{record.lineno}",
            error=error.__name__ if error else "",
        )


# ssl_transport_security.cc:2563] Handshake failed with error SSL_ERROR_SSL: error:100000c0:SSL
# routines:OPENSSL_internal:PEER_DID_NOT_RETURN_A_CERTIFICATE: …
_HANDSHAKE = "Handshake failed"
_REASON = re.compile(r"OPENSSL_internal:([A-Z0-9_]{1,60})")
_PLACE = re.compile(r"([\w-]+\.cc:\d+)\]")


class NativeLog:
    """Takes what C++ libraries write to stderr, makes log entries of it, counts TLS refusals.

    gRPC tells nobody of a failed handshake but its own log. Only file descriptor 2 is taken;
    Python's ``sys.stderr`` goes on writing to where it led before, and so does the report of a
    crash (``faulthandler``).
    """

    def __init__(self) -> None:
        self._before = os.dup(2)
        self.stream = os.fdopen(os.dup(self._before), "w", buffering=1, encoding="utf-8")
        self._python = sys.stderr
        sys.stderr = self.stream
        faulthandler.enable(self.stream)
        reading, writing = os.pipe()
        os.dup2(writing, 2)
        os.close(writing)
        self._pipe = os.fdopen(reading, encoding="utf-8", errors="replace")
        self._thread = threading.Thread(target=self._read, name="native-log", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Give the file descriptor back; what was written until now is logged first."""
        os.dup2(self._before, 2)  # the pipe's last writer is gone: its reader comes to an end
        self._thread.join()
        self._pipe.close()
        os.close(self._before)
        sys.stderr = self._python
        faulthandler.enable(self._python)
        self.stream.close()

    def _read(self) -> None:
        for line in self._pipe:
            take_native_line(line)


def take_native_line(line: str) -> None:
    """Log one line of a C++ library. Its text stays out: it may quote a peer's certificate."""
    if _HANDSHAKE in line:
        reason = _REASON.search(line)
        metrics.REFUSALS.labels(metrics.TLS_HANDSHAKE).inc()
        log.info("tls handshake failed", reason=reason[1] if reason else "UNKNOWN")
    elif line.strip():
        place = _PLACE.search(line)
        log.warning("native message", place=place[1] if place else "")
