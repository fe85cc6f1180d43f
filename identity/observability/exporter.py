"""Serves the numbers at ``http://ADDRESS/metrics``, those of the register's state among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from prometheus_client import start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from identity.errors import ConfigError, IdentityError
from identity.observability.metrics import REGISTRY
from identity.ports import Clock, Comparer
from identity.store import Database, Transaction

SOON = timedelta(days=14)
SILENT = timedelta(days=1)
_SOCKETS = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
_ESTABLISHED = "01"

log = structlog.get_logger("anju")


@dataclass(frozen=True)
class Watch:
    """Where the state of a server is read when somebody asks for it.

    Attributes:
        waiting_calls: calls that wait for a slot.
        ports: by name, e.g. ``main``: whose connections are counted.
        certificates: by name, e.g. ``server``: when each ends.
    """

    database: Database
    comparer: Comparer
    clock: Clock
    waiting_calls: Callable[[], int]
    ports: dict[str, int]
    certificates: dict[str, datetime]


class StateCollector(Collector):
    """Gauges read at each scrape. A register that cannot be read shows as one that is not up."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def collect(self) -> Iterator[Metric]:
        watch = self._watch
        yield _gauge("anju_calls_waiting", "Calls that wait for a slot.", watch.waiting_calls())
        yield _gauge("anju_index_references", "Fingers in the search index.", len(watch.comparer))
        sequence = watch.comparer.sequence
        yield _gauge("anju_index_sequence", "Last change that the index has seen.", sequence)
        ends = GaugeMetricFamily(
            "anju_certificate_expiry_timestamp_seconds",
            "When a certificate of the server's ends, Unix time.",
            labels=["certificate"],
        )
        for name, end in watch.certificates.items():
            ends.add_metric([name], end.timestamp())
        yield ends
        connections = GaugeMetricFamily(
            "anju_connections",
            "TCP connections, those still in their TLS handshake included.",
            labels=["port"],
        )
        for name, count in _connections(watch.ports).items():
            connections.add_metric([name], count)
        yield connections
        try:
            with watch.database.read() as tx:
                gauges = self._register(tx, sequence)
        except IdentityError as error:
            log.error("register unreadable for metrics", reason=error.reason)
            gauges = [_gauge("anju_register_readable", "Whether the register can be read.", 0)]
        yield from gauges

    def _register(self, tx: Transaction, index_sequence: int) -> list[Metric]:
        last = tx.people.last_change()
        waiting = len(tx.people.waiting_applications())
        now = self._watch.clock.now()
        states = GaugeMetricFamily("anju_terminals", "Terminals, by state.", labels=["state"])
        for state, count in tx.terminals.counted().items():
            states.add_metric([state.name.lower()], count)
        return [
            _gauge("anju_register_readable", "Whether the register can be read.", 1),
            _gauge("anju_register_sequence", "Last change of the register's references.", last),
            _gauge(
                "anju_index_lag_changes",
                "Changes that the index has yet to see.",
                max(0, last - index_sequence),
            ),
            _gauge(
                "anju_applications_waiting",
                "Applications accepted whose search is not answered yet.",
                waiting,
            ),
            states,
            _gauge(
                "anju_terminals_expiring",
                f"Active terminals whose certificate ends within {SOON.days} days.",
                tx.terminals.expiring(now + SOON),
            ),
            _gauge(
                "anju_terminals_silent",
                f"Active terminals not heard of for {SILENT.days} day.",
                tx.terminals.silent(now - SILENT),
            ),
        ]


class Exporter:
    """The HTTP port of the metrics, from construction until :meth:`close`.

    Raises:
        ConfigError: the address is taken.
    """

    def __init__(
        self, address: str, collector: Collector, registry: CollectorRegistry = REGISTRY
    ) -> None:
        host, _, port = address.rpartition(":")
        self._registry, self._collector = registry, collector
        registry.register(collector)
        try:
            self._server, self._thread = start_http_server(int(port), host.strip("[]"), registry)
        except OSError as error:
            registry.unregister(collector)
            raise ConfigError(
                f"cannot serve metrics on {address} ({error.strerror}): set "
                'observability.metrics_address, "" for none'
            ) from error
        self.address = f"{host}:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._registry.unregister(self._collector)


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value=value)


def _connections(ports: dict[str, int]) -> dict[str, int]:
    """Established connections by our port's name; none where the system does not tell (no Linux).

    A line is ``sl local_address rem_address st …``, addresses as ``hexadecimal IP:port``.
    """
    names = {f"{port:04X}": name for name, port in ports.items()}
    counts = dict.fromkeys(ports, 0)
    for path in _SOCKETS:
        if not path.exists():
            continue
        with path.open(encoding="ascii") as lines:
            for line in lines:
                fields = line.split()
                name = names.get(fields[1].rpartition(":")[2])
                if name is not None and fields[3] == _ESTABLISHED:
                    counts[name] += 1
    return counts
