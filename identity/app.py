"""The composition root: builds every object of a working directory, starts nothing by itself.

A working directory holds everything of one installation::

    anju.toml          configuration
    register.sqlite3   the register
    keys/              key-encryption, document-lookup and snapshot keys (0600)
    devices/           the device certificate authority and the server's certificate
    issuance/          permit keys, journal, published trust material; offline/ holds the root key
    index/             snapshot of the search index (sealed, derived, may be deleted)
    operators/<id>/    credentials of operators made on this machine
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import grpc
import numpy as np
import structlog
from cryptography import x509
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from anju.v1 import (
    adjudication_pb2,
    adjudication_pb2_grpc,
    audit_pb2,
    audit_pb2_grpc,
    enrolment_pb2,
    enrolment_pb2_grpc,
    matching_pb2,
    matching_pb2_grpc,
    operators_pb2,
    operators_pb2_grpc,
    permits_pb2,
    permits_pb2_grpc,
    register_pb2,
    register_pb2_grpc,
    terminals_pb2,
    terminals_pb2_grpc,
    trust_pb2,
    trust_pb2_grpc,
)
from devices.authority import Authority, open_authority
from devices.operators import Operators
from devices.provisioning import Provisioning
from identity import calls
from identity.adjudication import Adjudication
from identity.admission import Gate, Quotas, Slots
from identity.calls import CallInterceptor
from identity.config import Config, database_url, load_config
from identity.denials import DenialLog
from identity.enrolment import Enrolment
from identity.housekeeping import Chore, Housekeeper
from identity.images import require_extractor
from identity.issuing import IssuerPort
from identity.key_backend import open_issuing_keys
from identity.lookups import Lookups
from identity.observability.exporter import Exporter, StateCollector, Watch
from identity.permits import PermitDesk
from identity.ports import SystemClock
from identity.receiving import COARSE_LIMIT, ReceivingInterceptor, Watchman
from identity.reception import Reception
from identity.recorded import RecordedOperatorServicer, RecordedTerminalServicer, Recorder
from identity.references import ReferenceFollower
from identity.register import Register
from identity.rpc_status import StatusInterceptor
from identity.servicer import (
    AdjudicationServicer,
    AuditServicer,
    EnrolmentServicer,
    PermitServicer,
    RegisterServicer,
)
from identity.store import Database
from identity.terminal_store import SqlOperatorStore, SqlTerminalStore
from identity.transport import allow_open_files, grpc_server, listen
from identity.uploads import UploadDesk
from identity.vault import open_vault
from issuance.issuer import Issuer
from issuance.servicer import TrustServicer
from matcher.errors import IndexStateError
from matcher.matcher import Matcher
from matcher.search import SearchSettings
from matcher.servicer import MatchingServicer
from matcher.types import MinutiaKind, Template

KEYS, DEVICES, ISSUANCE, INDEX, OPERATORS = "keys", "devices", "issuance", "index", "operators"
SETTLE_EVERY_S = 60.0
REFRESH_EVERY_S = 3_600.0
OLD_UPLOADS_EVERY_S = 600.0
OLD_SESSIONS_EVERY_S = 86_400.0
REFUSING_THREADS = 4
# Threads that wait for the message of a call, beside those that work: see ``receiving``.
READING_THREADS = 64
# One terminal may have no more than this part of the uploads at a time.
SHARES_OF_UPLOADS = 4
CALLS_PER_CONNECTION = 100
# The provisioning port is for a moment in a terminal's life, and open to everybody.
OPEN_CONNECTIONS, OPEN_CALLS_PER_CONNECTION, OPEN_IDLE_S, OPEN_WAITING = 500, 4, 30.0, 16
FLUSH_S = 3.0

log = structlog.get_logger("anju")


@dataclass(frozen=True)
class Installation:
    """Everything of a working directory, built and connected."""

    directory: Path
    config: Config
    database: Database
    matcher: Matcher
    follower: ReferenceFollower
    enrolment: Enrolment
    desk: PermitDesk
    adjudication: Adjudication
    register: Register
    lookups: Lookups
    reception: Reception
    uploads: UploadDesk
    authority: Authority
    provisioning: Provisioning
    operators: Operators
    issuer: Issuer
    issuer_port: IssuerPort
    clock: SystemClock


@contextlib.contextmanager
def open_installation(directory: Path) -> Iterator[Installation]:
    """Build the objects of a working directory; one process at a time, the journal is locked.

    Raises:
        ConfigError: no working directory, a broken configuration, unusable keys.
        issuance.errors.JournalLockedError: another server runs on this directory.
    """
    config = load_config(directory)
    with contextlib.ExitStack() as stack:
        vault = open_vault(directory / KEYS)
        clock = SystemClock(config.development.clock_offset)
        issuing_keys = open_issuing_keys(directory / ISSUANCE / KEYS, config.keys)
        issuer = stack.enter_context(
            Issuer.open(directory / ISSUANCE, clock.now, keys=issuing_keys)
        )
        database = Database(database_url(config, directory), vault)
        stack.callback(database.close)
        database.require_current_schema()
        # Certificates live by the machine's clock: TLS asks no other.
        authority = open_authority(directory / DEVICES, SystemClock(), config.server.hostnames)
        with database.read() as tx:
            last_change = tx.people.last_change()
        matcher = _open_index(directory / INDEX, vault.snapshot_key, last_change)
        follower = ReferenceFollower(database, matcher)
        issuer_port = IssuerPort(issuer, config.permits)
        desk = PermitDesk(database, issuer_port, clock)
        capture = config.capture
        if capture.finger_images:
            require_extractor()
        operators = Operators(SqlOperatorStore(database), SystemClock(), config.sessions.limits)
        uploads = UploadDesk(database, capture, clock)
        enrolment = Enrolment(
            database, matcher, follower, config.decision, clock, capture.fingers_asked
        )
        yield Installation(
            directory=directory,
            config=config,
            database=database,
            matcher=matcher,
            follower=follower,
            enrolment=enrolment,
            desk=desk,
            adjudication=Adjudication(database, enrolment, clock),
            register=Register(database, desk, follower, config.lookup, clock),
            lookups=Lookups(database, matcher, config.decision, config.lookup, clock, calls.caller),
            reception=Reception(enrolment, desk, uploads, capture.finger_images),
            uploads=uploads,
            authority=authority,
            provisioning=Provisioning(
                authority,
                SqlTerminalStore(database),
                SystemClock(),
                lost=operators.terminal_lost,
            ),
            operators=operators,
            issuer=issuer,
            issuer_port=issuer_port,
            clock=clock,
        )


class Server:
    """The two ports and the housekeeping of one installation."""

    def __init__(self, installation: Installation) -> None:
        self._all = installation
        self._health = health.HealthServicer()
        self._snapshotted = 0
        self._denials = DenialLog(installation.database, installation.clock)
        self._housekeeper = Housekeeper(
            (
                Chore("snapshot", 0.0, self._snapshot_when_due),
                # Accepted, but the caller's deadline passed or the search was incomplete.
                Chore("settle", SETTLE_EVERY_S, installation.enrolment.settle_waiting),
                Chore("refresh", REFRESH_EVERY_S, installation.issuer_port.refresh),
                Chore("denials", 0.0, self._denials.flush),
                Chore(
                    "old sessions", OLD_SESSIONS_EVERY_S, installation.operators.forget_old_sessions
                ),
                Chore("old uploads", OLD_UPLOADS_EVERY_S, installation.uploads.forget_old),
                # `anju key` and `anju trust publish` work beside a running server.
                Chore("publication asked for", 0.0, installation.issuer.publish_if_asked),
            )
        )
        settings, streams = installation.config.server, installation.config.capture.upload_streams
        credentials = installation.authority.server
        pair = [(credentials.key_pem, credentials.certificate_pem)]
        workers = settings.workers or 2 * (os.cpu_count() or 1)
        self._slots = Slots(workers, settings.waiting_calls)
        self._gate = Gate()
        self._watchman = Watchman(settings.message_s)
        self._exporter: Exporter | None = None
        outside = (
            StatusInterceptor(),
            ReceivingInterceptor(
                self._gate,
                settings.max_message_bytes,
                self._watchman,
                self._denials,
                streams_each=max(1, streams // SHARES_OF_UPLOADS),
            ),
        )
        guard = CallInterceptor(
            installation.provisioning,
            self._slots,
            Quotas(settings.terminal_calls_per_minute),
            # An upload that does not begin at once is refused: its terminal can wait better.
            Slots(streams, 0),
            operators=installation.operators,
            denials=self._denials,
        )
        # Every waiting call has a thread, and some more refuse the others without delay.
        threads = workers + settings.waiting_calls + streams + REFUSING_THREADS
        self._main = grpc_server(
            threads + READING_THREADS,
            (*outside, guard),
            max_message_bytes=COARSE_LIMIT * settings.max_message_bytes,
            connections=settings.max_connections,
            calls_per_connection=CALLS_PER_CONNECTION,
            idle_s=settings.idle_s,
            handshake_s=settings.handshake_s,
        )
        open_workers = max(2, workers // 4)
        self._open = grpc_server(
            open_workers + OPEN_WAITING + REFUSING_THREADS + READING_THREADS,
            (
                *outside,
                CallInterceptor(None, Slots(open_workers, OPEN_WAITING), denials=self._denials),
            ),
            max_message_bytes=COARSE_LIMIT * settings.max_message_bytes,
            connections=OPEN_CONNECTIONS,
            calls_per_connection=OPEN_CALLS_PER_CONNECTION,
            idle_s=OPEN_IDLE_S,
            handshake_s=settings.handshake_s,
        )
        self._register_services()
        self.address = listen(
            self._main,
            settings.address,
            grpc.ssl_server_credentials(
                pair, root_certificates=credentials.ca_pem, require_client_auth=True
            ),
        )
        self.provisioning_address = listen(
            self._open, settings.provisioning_address, grpc.ssl_server_credentials(pair)
        )

    def start(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Catch up with what an earlier process left, then serve.

        Args:
            progress: called with (changes applied, changes in all) while the index follows.
        """
        everything = self._all
        allow_open_files(everything.config.server.max_connections + OPEN_CONNECTIONS)
        metrics_address = everything.config.observability.metrics_address
        if metrics_address:
            self._exporter = Exporter(metrics_address, StateCollector(self._watch()))
        _warm_up()
        replayed = everything.follower.catch_up(progress)
        everything.desk.reconcile()
        settled = everything.enrolment.settle_waiting()
        self._snapshotted = everything.matcher.sequence
        self._watchman.start()
        self._main.start()
        self._open.start()
        self._housekeeper.start()
        self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        log.info(
            "serving",
            address=self.address,
            provisioning_address=self.provisioning_address,
            metrics_address=self._exporter.address if self._exporter is not None else "",
            references=len(everything.matcher),
            replayed=replayed,
            settled=settled,
        )

    def stop(self) -> None:
        """Refuse new calls, let running ones finish within the drain time, write the snapshot.

        Health says NOT_SERVING first. The ports stay open while calls run, so that whoever comes
        meanwhile is told UNAVAILABLE, DRAINING. What then still runs is cut off; an application
        that was acknowledged, or only accepted, is in the register and settled at the next start.
        """
        self._health.enter_graceful_shutdown()
        log.info("draining")
        cut_off = self._gate.shut(self._all.config.server.drain_s)
        # Answers are on their way, and so is NOT_SERVING to whoever watches.
        for stopped in [one.stop(0 if cut_off else FLUSH_S) for one in (self._main, self._open)]:
            stopped.wait()
        self._watchman.stop()
        self._housekeeper.stop()
        self._denials.flush(everything=True)
        if self._exporter is not None:
            self._exporter.close()
        self._all.matcher.snapshot()
        log.info("stopped", references=len(self._all.matcher), cut_off=cut_off)

    def _watch(self) -> Watch:
        everything = self._all
        addresses = {"main": self.address, "provisioning": self.provisioning_address}
        credentials = everything.authority.server
        return Watch(
            database=everything.database,
            comparer=everything.matcher,
            clock=everything.clock,
            waiting_calls=lambda: self._slots.waiting,
            ports={name: int(one.rpartition(":")[2]) for name, one in addresses.items()},
            certificates={
                "server": _not_after(credentials.certificate_pem),
                "authority": _not_after(credentials.ca_pem),
            },
        )

    def _register_services(self) -> None:
        everything, main = self._all, self._main
        recorder = Recorder(everything.database, everything.clock)
        terminals = RecordedTerminalServicer(everything.provisioning, recorder)
        operators_pb2_grpc.add_OperatorServiceServicer_to_server(
            RecordedOperatorServicer(everything.operators, recorder), main
        )
        trust = TrustServicer(everything.issuer)
        for server in (main, self._open):
            terminals_pb2_grpc.add_TerminalServiceServicer_to_server(terminals, server)
            trust_pb2_grpc.add_TrustServiceServicer_to_server(trust, server)
            health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        enrolment_pb2_grpc.add_EnrolmentServiceServicer_to_server(
            EnrolmentServicer(everything.reception, everything.uploads), main
        )
        matching_pb2_grpc.add_MatchingServiceServicer_to_server(
            MatchingServicer(everything.lookups), main
        )
        register_pb2_grpc.add_RegisterServiceServicer_to_server(
            RegisterServicer(everything.register), main
        )
        permits_pb2_grpc.add_PermitServiceServicer_to_server(PermitServicer(everything.desk), main)
        adjudication_pb2_grpc.add_AdjudicationServiceServicer_to_server(
            AdjudicationServicer(everything.adjudication), main
        )
        audit_pb2_grpc.add_AuditServiceServicer_to_server(AuditServicer(everything.database), main)
        names = [
            module.DESCRIPTOR.services_by_name[service].full_name
            for module in SERVICES
            for service in module.DESCRIPTOR.services_by_name
        ]
        reflection.enable_server_reflection(
            [*names, health.SERVICE_NAME, reflection.SERVICE_NAME], main
        )

    def _snapshot_when_due(self) -> None:
        matcher = self._all.matcher
        if matcher.sequence - self._snapshotted >= self._all.config.store.snapshot_every_changes:
            sequence = matcher.sequence
            matcher.snapshot()
            self._snapshotted = sequence


SERVICES = (
    terminals_pb2,
    operators_pb2,
    enrolment_pb2,
    matching_pb2,
    register_pb2,
    permits_pb2,
    adjudication_pb2,
    trust_pb2,
    audit_pb2,
)


def _not_after(certificate_pem: bytes) -> datetime:
    return x509.load_pem_x509_certificate(certificate_pem).not_valid_after_utc


def _warm_up() -> None:
    """Compile the numeric kernels before anybody waits for them; from a cache after the first time.

    Minutiae strewn at random go through a matcher of its own, which is then forgotten. No synthetic
    finger: its generator would have to be compiled too, and the service never draws one.
    """
    random = np.random.default_rng(0)
    count = 40
    finger = Template(
        x=random.uniform(20, 280, count).astype(np.float32),
        y=random.uniform(20, 380, count).astype(np.float32),
        angle=random.uniform(0, 2 * np.pi, count).astype(np.float32),
        kind=np.full(count, MinutiaKind.ENDING, dtype=np.uint8),
        quality=np.full(count, 80, dtype=np.uint8),
        width=300,
        height=400,
    )
    scratch = Matcher.open(None)
    # One more than are compared without voting, so that voting is compiled as well.
    for number in range(SearchSettings().exhaustive_references + 1):
        scratch.add(f"warm-up-{number}", [finger], number)
    scratch.identify([finger])
    scratch.verify("warm-up-0", [finger], fmr=0.01)


def _open_index(directory: Path, key: bytes, last_change: int) -> Matcher:
    """The index as its snapshot has it; empty, to be rebuilt, where that cannot be used.

    Args:
        last_change: of the register. A snapshot that has seen more belongs to a database that is no
            longer there (a backup was restored): it knows people whom the register does not, and
            would take the next changes for ones it has seen.
    """
    try:
        matcher = Matcher.open(directory, key=key)
        if matcher.sequence <= last_change:
            return matcher
        reason = f"it has seen change {matcher.sequence}, the register ends at {last_change}"
    except IndexStateError as error:
        reason = str(error)
    # The index is derived: a snapshot that cannot be used costs a rebuild, nothing else.
    log.warning("index snapshot unusable, rebuilding", reason=reason)
    for stale in directory.iterdir():
        stale.unlink()
    return Matcher.open(directory, key=key)
