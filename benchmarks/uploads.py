"""How fast do pictures come in, over mutual TLS, and what does a cut cost?

    python -m benchmarks.uploads [--pictures N] [--bytes B] [--clients C]

A server runs in a process of its own; C client threads in this one upload N pictures of B bytes,
each sealed and durable before its answer. Then one picture of 8 MiB goes through a line that falls
silent after every 512 KiB and is cut, which no attempt that began anew would survive: how many
bytes travelled? (What is still under way when a line is cut is lost, here as anywhere.)

Client and server share the machine's cores.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import secrets
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from anju.v1 import enrolment_pb2, enrolment_pb2_grpc
from benchmarks.common import environment
from devices.simulator import fleet
from devices.terminal import Connection, connect
from identity.server_process import loopback_toml, serving
from identity.setup import create_installation

LARGEST, CUT_EVERY, CHUNK = 8 << 20, 512 << 10, 64 << 10
SILENT_S = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--bytes", type=int, default=200_000)
    parser.add_argument("--clients", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="anju-uploads-") as folder:
        directory = Path(folder) / "work"
        toml, provisioning_address = loopback_toml()
        create_installation(directory, toml)
        with serving(directory), contextlib.ExitStack() as stack:
            operator = stack.enter_context(connect(directory / "operators" / "operator-1"))
            homes = directory / "terminals"
            for one in fleet(homes, operator, "bench", arguments.clients, provisioning_address):
                stack.callback(one.close)
            terminals = [
                stack.enter_context(connect(home)) for home in sorted(homes.glob("sim-0*"))
            ]
            _throughput(terminals, arguments.pictures, arguments.bytes)
            _cuts(terminals[0])
    print(environment())


def _throughput(terminals: list[Connection], pictures: int, size: int) -> None:
    def upload(number: int) -> float:
        content = secrets.token_bytes(size)
        began = time.perf_counter()
        terminals[number % len(terminals)].upload(content)
        return (time.perf_counter() - began) * 1_000

    list(map(upload, range(len(terminals))))  # connections
    began = time.perf_counter()
    with ThreadPoolExecutor(len(terminals)) as pool:
        latencies = sorted(pool.map(upload, range(pictures)))
    took = time.perf_counter() - began
    p50, p99 = latencies[len(latencies) // 2], latencies[int(len(latencies) * 0.99)]
    print(
        f"{pictures} pictures of {size:,} bytes, {len(terminals)} clients: {pictures / took:.0f}/s "
        f"({pictures * size / took / 1e6:.1f} MB/s), p50 {p50:.0f} ms, p99 {p99:.0f} ms"
    )


def _cuts(terminal: Connection) -> None:
    content = secrets.token_bytes(LARGEST)
    digest = hashlib.sha256(content).digest()
    stub = enrolment_pb2_grpc.EnrolmentServiceStub(terminal.channel)
    travelled = cuts = 0
    while True:
        at = stub.GetUpload(enrolment_pb2.GetUploadRequest(sha256=digest)).received
        part = content[at : at + CUT_EVERY]
        travelled += len(part)
        last = at + len(part) == LARGEST

        def messages(
            at: int = at, part: bytes = part, last: bool = last
        ) -> Iterator[enrolment_pb2.UploadRequest]:
            start = enrolment_pb2.UploadStart(sha256=digest, size=LARGEST, offset=at)
            yield enrolment_pb2.UploadRequest(start=start)
            for begin in range(0, len(part), CHUNK):
                yield enrolment_pb2.UploadRequest(chunk=part[begin : begin + CHUNK])
            if not last:
                time.sleep(SILENT_S)
                raise ConnectionResetError

        with contextlib.suppress(grpc.RpcError):
            stub.Upload(messages())
        if last:
            break
        cuts += 1
    answer = stub.GetUpload(enrolment_pb2.GetUploadRequest(sha256=digest))
    if not answer.complete:
        raise SystemExit("the upload is not whole")
    print(f"8 MiB through {cuts} cuts: {travelled / LARGEST:.2f} times its size travelled")


if __name__ == "__main__":
    main()
