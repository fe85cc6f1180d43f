"""Runs the server in the foreground: structured logs on stderr, a clean stop on SIGTERM."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path
from types import FrameType

# gRPC reads it when it is loaded. Our keys are elliptic curves, so a suite for RSA keys leaves
# TLS 1.2 none: TLS 1.3, whose suites are not chosen here, is all that this server speaks.
os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-RSA-AES128-GCM-SHA256"

from identity.app import Server, open_installation
from identity.config import load_config
from identity.observability import logs, tracing


def run(directory: Path) -> None:
    """Serve until SIGTERM or SIGINT. Raises what opening the installation raises."""
    observability = load_config(directory).observability
    asked = threading.Event()

    def ask_to_stop(_number: int, _frame: FrameType | None) -> None:
        asked.set()

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    with contextlib.ExitStack() as stack:
        native = stack.enter_context(contextlib.closing(logs.NativeLog()))
        logs.configure(observability.log_level, observability.log_format, native.stream)
        if observability.tracing:
            provider = tracing.otlp_provider()
            tracing.start(provider)
            stack.callback(provider.shutdown)  # sends what it still has
        server = Server(stack.enter_context(open_installation(directory)))
        server.start()
        asked.wait()
        server.stop()
