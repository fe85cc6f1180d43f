"""One file, ``anju.toml``, read once into one tree of frozen dataclasses.

Unknown keys are refused and cross-field rules are checked at start, so that a bad deployment fails
before it serves anybody. Relative paths are relative to the working directory that holds the file.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from devices.operators import SessionLimits
from identity.errors import ConfigError

CONFIG_FILE = "anju.toml"


@dataclass(frozen=True)
class ServerConfig:
    """Where the service listens.

    ``address`` asks every caller for a client certificate. ``provisioning_address`` has server TLS
    only, for terminals that have no certificate yet and for public trust material.

    Attributes:
        workers: calls that run at a time; 0 for twice the cores. More only take turns: a search
            keeps a core busy, and the one whose decision others wait for is slowed by theirs.
        waiting_calls: calls that may wait for a worker; one more is refused as BUSY.
        terminal_calls_per_minute: of each terminal, on average and at once; 0 sets no limit.
        drain_s: what running calls get to finish when the server is stopped.
        max_connections: of terminals and operators; as many open files are needed.
        idle_s: a connection without a call is closed after that, and opened by the next call.
        message_s: what a caller gets to send its message once it has begun a call.
        handshake_s: what a caller gets for TLS and the HTTP/2 settings after it. Who has no
            certificate can hold a connection for that long.
    """

    address: str = "127.0.0.1:7443"
    provisioning_address: str = "127.0.0.1:7444"
    hostnames: tuple[str, ...] = ("localhost", "127.0.0.1", "::1")
    workers: int = 0
    waiting_calls: int = 64
    terminal_calls_per_minute: int = 1_200
    max_message_bytes: int = 1_048_576
    drain_s: float = 10.0
    max_connections: int = 6_000
    idle_s: float = 3_600.0
    message_s: float = 20.0
    handshake_s: float = 10.0

    def __post_init__(self) -> None:
        _require(self.workers == 0 or self.workers >= 2, "server.workers", "must be at least 2")
        _require(0 <= self.waiting_calls <= 1_000, "server.waiting_calls", "must be 0 to 1000")
        _require(
            self.terminal_calls_per_minute >= 0,
            "server.terminal_calls_per_minute",
            "must not be negative",
        )
        _require(bool(self.hostnames), "server.hostnames", "must name at least one host")
        _require(0 <= self.drain_s <= 3_600, "server.drain_s", "must be 0 to 3600")
        _require(
            16 <= self.max_connections <= 100_000, "server.max_connections", "must be 16 to 100000"
        )
        _require(1 <= self.idle_s <= 86_400, "server.idle_s", "must be 1 to 86400")
        _require(1 <= self.message_s <= 600, "server.message_s", "must be 1 to 600")
        _require(1 <= self.handshake_s <= 60, "server.handshake_s", "must be 1 to 60")
        _require(
            self.max_message_bytes >= 262_144,
            "server.max_message_bytes",
            "must be at least 262144: ten fingers and their particulars",
        )
        _require(
            self.address != self.provisioning_address or self.address.endswith(":0"),
            "server.provisioning_address",
            "must differ from server.address",
        )


@dataclass(frozen=True)
class StoreConfig:
    """The database. The default is SQLite beside the configuration file."""

    url: str = "sqlite:///register.sqlite3"
    snapshot_every_changes: int = 5_000

    def __post_init__(self) -> None:
        _require(
            self.snapshot_every_changes >= 1, "store.snapshot_every_changes", "must be at least 1"
        )


@dataclass(frozen=True)
class DecisionPolicy:
    """When two people are taken to be one.

    Attributes:
        fpir_same: false positive identification rate over the whole register at which a search
            says "same person" (ISO/IEC 19795-1); people still look when particulars differ.
        fpir_grey: the rate below which people are asked.
        fmr_verify: false match rate of a 1:1 comparison against a claim.
        candidate_limit: how many registrants a case may name.
    """

    fpir_same: float = 1e-5
    fpir_grey: float = 1e-3
    fmr_verify: float = 1e-4
    candidate_limit: int = 10

    def __post_init__(self) -> None:
        _require(
            0 < self.fpir_same < self.fpir_grey < 1,
            "decision.fpir_same",
            "and fpir_grey must satisfy 0 < fpir_same < fpir_grey < 1",
        )
        _require(0 < self.fmr_verify < 1, "decision.fmr_verify", "must be between 0 and 1")
        _require(1 <= self.candidate_limit <= 50, "decision.candidate_limit", "must be 1 to 50")


@dataclass(frozen=True)
class PermitConfig:
    """What a permit says of its issuer, and how long it lives.

    ``photographs`` is decided when a working directory is made: it is part of the published
    profile. Then a permit shows its holder's face if the applicant gave a portrait.
    """

    issuer_uri: str = "https://anju.example/city"
    authority_name: str = "示例市公安局人口管理处"
    country: str = "CHN"
    validity_days: int = 365
    photographs: bool = False

    def __post_init__(self) -> None:
        parts = urlsplit(self.issuer_uri)
        _require(
            parts.scheme == "https" and bool(parts.netloc) and len(self.issuer_uri) <= 100,
            "permits.issuer_uri",
            "must be a full https URI of at most 100 characters (Claim 169: iss)",
        )
        _require(
            1 <= len(self.authority_name) <= 60,
            "permits.authority_name",
            "must have 1 to 60 characters",
        )
        _require(
            1 <= self.validity_days <= 365,
            "permits.validity_days",
            "must be 1 to 365 (a temporary permit is valid for at most a year)",
        )


@dataclass(frozen=True)
class KeyConfig:
    """Where the issuing keys are.

    Attributes:
        backend: "files", or "pkcs11" for a token.
        passphrase_file: encrypts the key files; empty for keys that lie open (0600).
        pkcs11_module: absolute path of the token's library.
        pkcs11_token: label of the token.
        pkcs11_pin_file: absolute path of a file with the user PIN.
    """

    backend: str = "files"
    passphrase_file: str = ""
    pkcs11_module: str = ""
    pkcs11_token: str = ""
    pkcs11_pin_file: str = ""

    def __post_init__(self) -> None:
        token = (self.pkcs11_module, self.pkcs11_token, self.pkcs11_pin_file)
        if self.backend == "pkcs11":
            _require(all(token), "keys.pkcs11_*", "must name module, token and pin_file")
            _require(not self.passphrase_file, "keys.passphrase_file", "is for key files only")
        else:
            _require(self.backend == "files", "keys.backend", 'must be "files" or "pkcs11"')
            _require(not any(token), "keys.pkcs11_*", 'needs backend = "pkcs11"')
        for name in ("passphrase_file", "pkcs11_module", "pkcs11_pin_file"):
            path = getattr(self, name)
            _require(not path or Path(path).is_absolute(), f"keys.{name}", "must be absolute")


@dataclass(frozen=True)
class CaptureConfig:
    """What stations capture.

    Attributes:
        fingers_asked: how many fingers each person is asked for. For one that is not among the
            samples a reason must be given; with a reason nobody is refused for it.
        finger_images: whether the register extracts fingers from images itself. Needs the extra
            [extract], and about a second of a core for each finger.
        max_upload_bytes: of one picture.
        upload_bytes_per_terminal, upload_bytes: of pictures that wait for their applications, of
            one terminal and of all.
        upload_streams: uploads at a time.
    """

    fingers_asked: int = 1
    finger_images: bool = False
    max_upload_bytes: int = 8 << 20
    upload_bytes_per_terminal: int = 64 << 20
    upload_bytes: int = 2 << 30
    upload_streams: int = 16

    def __post_init__(self) -> None:
        _require(1 <= self.fingers_asked <= 10, "capture.fingers_asked", "must be 1 to 10")
        _require(
            65_536 <= self.max_upload_bytes <= 8 << 20,
            "capture.max_upload_bytes",
            "must be 65536 to 8388608",
        )
        _require(
            self.max_upload_bytes <= self.upload_bytes_per_terminal <= self.upload_bytes,
            "capture.upload_bytes",
            "must be at least upload_bytes_per_terminal, and that at least max_upload_bytes",
        )
        _require(1 <= self.upload_streams <= 1_000, "capture.upload_streams", "must be 1 to 1000")


@dataclass(frozen=True)
class SessionConfig:
    """How long an operator's session at a terminal lasts.

    Attributes:
        hours: in all. A terminal without a network goes on capturing under the session it has, so
            a city whose stations are cut off for days sets it longer.
        idle_minutes: without a call, or a capture.
    """

    hours: int = 12
    idle_minutes: int = 30

    def __post_init__(self) -> None:
        _require(1 <= self.hours <= 168, "sessions.hours", "must be 1 to 168")
        _require(1 <= self.idle_minutes <= 720, "sessions.idle_minutes", "must be 1 to 720")

    @property
    def limits(self) -> SessionLimits:
        return SessionLimits(timedelta(hours=self.hours), timedelta(minutes=self.idle_minutes))


@dataclass(frozen=True)
class LookupConfig:
    """The purposes a lookup may name. A lookup without one of these is refused."""

    purposes: tuple[str, ...] = (
        "counter-service",
        "identity-check",
        "adjudication",
        "correction",
        "own-record",
    )

    def __post_init__(self) -> None:
        _require(bool(self.purposes), "lookup.purposes", "must name at least one purpose")


@dataclass(frozen=True)
class ObservabilityConfig:
    """What an operator of the server sees of it; nothing of it tells of a person.

    Attributes:
        log_level: "debug", "info" (a line for each call) or "warning".
        log_format: "json", an object a line; or "console", for a person's eyes.
        metrics_address: where Prometheus asks, over HTTP without TLS; empty for nowhere.
        tracing: whether spans are sent, by OTLP to where the OTEL_* variables say; needs the extra
            [tracing].
    """

    log_level: str = "info"
    log_format: str = "json"
    metrics_address: str = "127.0.0.1:7445"
    tracing: bool = False

    def __post_init__(self) -> None:
        _require(
            self.log_level in ("debug", "info", "warning"),
            "observability.log_level",
            'must be "debug", "info" or "warning"',
        )
        _require(
            self.log_format in ("json", "console"),
            "observability.log_format",
            'must be "json" or "console"',
        )
        host, _, port = self.metrics_address.rpartition(":")
        _require(
            not self.metrics_address or (bool(host) and port.isascii() and port.isdigit()),
            "observability.metrics_address",
            'must be host:port, or "" for none',
        )


@dataclass(frozen=True)
class DevelopmentConfig:
    """For demonstrations and tests only.

    ``clock_offset_days`` shifts the register's clock, to show a permit that has expired.
    """

    clock_offset_days: int = 0

    def __post_init__(self) -> None:
        _require(
            abs(self.clock_offset_days) <= 36_500,
            "development.clock_offset_days",
            "must be -36500 to 36500",
        )

    @property
    def clock_offset(self) -> timedelta:
        return timedelta(days=self.clock_offset_days)


@dataclass(frozen=True)
class Config:
    server: ServerConfig = field(default_factory=ServerConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    decision: DecisionPolicy = field(default_factory=DecisionPolicy)
    permits: PermitConfig = field(default_factory=PermitConfig)
    keys: KeyConfig = field(default_factory=KeyConfig)
    capture: CaptureConfig = field(default_factory=CaptureConfig)
    sessions: SessionConfig = field(default_factory=SessionConfig)
    lookup: LookupConfig = field(default_factory=LookupConfig)
    observability: ObservabilityConfig = field(default_factory=ObservabilityConfig)
    development: DevelopmentConfig = field(default_factory=DevelopmentConfig)


DEFAULT_TOML = """\
# anju's configuration. Every key is optional; unknown keys are refused.

[server]
address = "127.0.0.1:7443"              # mutual TLS: terminals, operators
provisioning_address = "127.0.0.1:7444" # server TLS only: provisioning, trust material
hostnames = ["localhost", "127.0.0.1", "::1"] # what the server's certificate is valid for
waiting_calls = 64                      # beyond, callers are told to come back (BUSY)
terminal_calls_per_minute = 1200        # of each terminal; 0 sets no limit
max_connections = 6000                  # needs as many open files
drain_s = 10.0                          # for running calls, when the server is stopped

[store]
url = "sqlite:///register.sqlite3"      # relative to this directory
snapshot_every_changes = 5000           # how often the search index is written to disk

[decision]
fpir_same = 1e-5  # false positive identification rate of "same person", over the whole register
fpir_grey = 1e-3  # ... of "let people look"
fmr_verify = 1e-4 # false match rate of a 1:1 comparison

[permits]
issuer_uri = "https://anju.example/city"
authority_name = "示例市公安局人口管理处"
validity_days = 365 # at most 365
photographs = false # whether permits show the holder's face; decided at `anju init`

[keys]
backend = "files" # of the issuing keys; or "pkcs11", with pkcs11_module, _token and _pin_file
# passphrase_file = "/etc/anju/passphrase" # encrypts the key files; absolute, mode 0400

[capture]
fingers_asked = 1     # for each that is not captured, a reason must be given
finger_images = false # whether the register extracts fingers from images; needs [extract]

[sessions]
hours = 12        # of an operator at a terminal, in all; at most 168
idle_minutes = 30 # without a call, or a capture

[lookup]
purposes = ["counter-service", "identity-check", "adjudication", "correction", "own-record"]

[observability]
log_level = "info"                 # a line for each call; "warning" for trouble only
log_format = "json"                # or "console"
metrics_address = "127.0.0.1:7445" # Prometheus, HTTP; "" for none
tracing = false                    # OpenTelemetry; needs the extra [tracing]
"""

Section = TypeVar("Section")


def load_config(directory: Path) -> Config:
    """The configuration of a working directory.

    Raises:
        ConfigError: no such file, no TOML, an unknown key, a wrong type, or a broken rule.
    """
    path = directory / CONFIG_FILE
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"{directory} is no working directory: it has no {CONFIG_FILE}; run `anju init` first"
        ) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read {path.name}: {error}") from error
    known = {section.name: section for section in fields(Config)}
    for name in tree:
        _require(name in known, name, f"is no section; expected one of {', '.join(known)}")
    return Config(
        server=_section(ServerConfig, "server", tree),
        store=_section(StoreConfig, "store", tree),
        decision=_section(DecisionPolicy, "decision", tree),
        permits=_section(PermitConfig, "permits", tree),
        keys=_section(KeyConfig, "keys", tree),
        capture=_section(CaptureConfig, "capture", tree),
        sessions=_section(SessionConfig, "sessions", tree),
        lookup=_section(LookupConfig, "lookup", tree),
        observability=_section(ObservabilityConfig, "observability", tree),
        development=_section(DevelopmentConfig, "development", tree),
    )


def database_url(config: Config, directory: Path) -> str:
    """The database URL, with a relative SQLite path made absolute."""
    prefix = "sqlite:///"
    url = config.store.url
    if not url.startswith(prefix) or url.startswith(prefix + "/"):
        return url
    return f"{prefix}{(directory / url.removeprefix(prefix)).resolve()}"


def _section(kind: type[Section], name: str, tree: dict[str, Any]) -> Section:
    table = tree.get(name, {})
    _require(isinstance(table, dict), name, "must be a table")
    defaults = kind()
    known = {item.name: getattr(defaults, item.name) for item in fields(kind)}  # type: ignore[arg-type]
    values = {}
    for key, value in table.items():
        where = f"{name}.{key}"
        _require(key in known, where, f"is unknown; expected one of {', '.join(known)}")
        values[key] = _typed(where, value, known[key])
    return kind(**values)


def _typed(where: str, value: Any, default: Any) -> Any:
    if isinstance(default, tuple):
        _require(
            isinstance(value, list) and all(isinstance(item, str) for item in value),
            where,
            "must be a list of strings",
        )
        return tuple(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    _require(
        type(value) is type(default), where, f"must be {type(default).__name__}, got {value!r}"
    )
    return value


def _require(holds: bool, where: str, problem: str) -> None:
    if not holds:
        raise ConfigError(f"{CONFIG_FILE}: {where} {problem}")
