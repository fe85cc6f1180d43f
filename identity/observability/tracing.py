"""Spans for calls and their steps, by OpenTelemetry, where the extra ``[tracing]`` is installed.

Off, a span costs a test of a variable. What a span says is its name and a few ids; exceptions are
never recorded in it, because their messages may quote what a caller sent.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from identity.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

SERVICE = "anju"

_tracer: Tracer | None = None


def start(provider: TracerProvider) -> None:
    """Record spans with this provider from now on, in the whole process."""
    global _tracer
    _tracer = provider.get_tracer(SERVICE)


def stop() -> None:
    """Record no more spans."""
    global _tracer
    _tracer = None


def otlp_provider() -> TracerProvider:
    """Sends spans by OTLP over HTTP to where the standard OTEL_* variables say.

    Raises:
        ConfigError: the extra ``[tracing]`` is not installed.
    """
    # `find_spec` of a submodule imports its parents, so ask for them in turn.
    for name in ("opentelemetry", "opentelemetry.exporter", "opentelemetry.exporter.otlp"):
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                'observability.tracing needs OpenTelemetry: pip install "anju[tracing]"'
            )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: SERVICE}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


@contextmanager
def span(
    name: str, attributes: Mapping[str, str] | None = None, server: bool = False
) -> Iterator[Span | None]:
    """A span for the length of the block, a child of the one around it; None while off.

    Args:
        attributes: ids, methods and the like, never what a caller sent.
        server: whether this is a call that came over the network.
    """
    if _tracer is None:
        yield None
        return
    from opentelemetry.trace import SpanKind

    with _tracer.start_as_current_span(
        name,
        kind=SpanKind.SERVER if server else SpanKind.INTERNAL,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as one:
        yield one
