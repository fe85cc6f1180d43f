"""Times the steps of a call: one histogram, and a span where traces are on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from identity.observability import tracing
from identity.observability.metrics import STAGE_SECONDS


@contextmanager
def stage(name: str) -> Iterator[None]:
    """A step of the work, from a fixed set of names: it becomes a label."""
    start = time.perf_counter()
    try:
        with tracing.span(name):
            yield
    finally:
        STAGE_SECONDS.labels(name).observe(time.perf_counter() - start)
