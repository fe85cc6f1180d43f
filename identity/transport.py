"""How the ports are opened: TLS, limits and timeouts of connections, for thousands of terminals.

Most terminals are connected and idle most of the time. Each connection is a file descriptor, some
memory (see benchmarks/RESULTS.md) and nothing else, until somebody sends less than they should:

* a TLS handshake, and the HTTP/2 settings after it, take ``handshake_s`` at most, however slowly a
  peer sends. gRPC then closes the connection;
* a connection without a call is closed after ``idle_s`` and opened again by the next call; it is
  pinged meanwhile, so that a peer who lost its power is noticed;
* every connection is closed in good time after AGE (calls on it are finished): a certificate that
  has expired or a key that was changed is looked at again;
* there are so many connections at most, so many calls at a time on one, and the process must be
  allowed that many open files, which is checked at start.

What no argument of gRPC's covers, calls without a message, is in ``receiving``. tests/identity/
test_transport.py holds each of these against the real server.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

try:
    import resource
except ModuleNotFoundError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

import grpc

from identity.errors import ConfigError

AGE = timedelta(hours=12)  # gRPC varies it by a tenth, so that not all come back at once
AGE_GRACE = timedelta(minutes=5)
PING_EVERY = timedelta(minutes=2)
PING_ANSWER = timedelta(seconds=20)
PINGS_TAKEN_EVERY = timedelta(seconds=30)  # of a client; one that sends more is sent away
SPARE_FILES = 256  # database, index, journal, log, listening sockets


def grpc_server(
    threads: int,
    interceptors: Sequence[grpc.ServerInterceptor],
    *,
    max_message_bytes: int,
    connections: int,
    calls_per_connection: int,
    idle_s: float,
    handshake_s: float,
) -> grpc.Server:
    """A server that listens nowhere yet.

    Args:
        max_message_bytes: beyond, gRPC refuses a message by the length it announces.
    """
    return grpc.server(
        ThreadPoolExecutor(threads, thread_name_prefix="rpc"),
        interceptors=list(interceptors),
        options=[
            ("grpc.max_receive_message_length", max_message_bytes),
            # Two servers on one port would each answer half the calls, from two indexes.
            ("grpc.so_reuseport", 0),
            ("grpc.server_handshake_timeout_ms", int(handshake_s * 1000)),
            ("grpc.max_allowed_incoming_connections", connections),
            ("grpc.max_concurrent_streams", calls_per_connection),
            ("grpc.max_connection_idle_ms", int(idle_s * 1000)),
            ("grpc.max_connection_age_ms", _ms(AGE)),
            ("grpc.max_connection_age_grace_ms", _ms(AGE_GRACE)),
            ("grpc.keepalive_time_ms", _ms(PING_EVERY)),
            ("grpc.keepalive_timeout_ms", _ms(PING_ANSWER)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", _ms(PINGS_TAKEN_EVERY)),
        ],
    )


def listen(server: grpc.Server, address: str, credentials: grpc.ServerCredentials) -> str:
    """The address it listens on; another port than asked for only if that was 0.

    Raises:
        ConfigError: the address is taken or not ours.
    """
    try:
        port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise ConfigError(f"cannot listen on {address}: is another server running?") from error
    return f"{address.rsplit(':', 1)[0]}:{port}"


def allow_open_files(connections: int) -> None:
    """Raise this process's limit on open files to what so many connections need.

    Raises:
        ConfigError: the system does not let us.
    """
    if resource is None:
        return
    needed = connections + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ConfigError(
            f"server.max_connections = {connections} needs {needed} open files, and the system "
            f"allows this process {hard}: raise its limit (LimitNOFILE= in systemd, or `ulimit "
            "-Hn`) or lower server.max_connections"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _ms(duration: timedelta) -> int:
    return int(duration / timedelta(milliseconds=1))
