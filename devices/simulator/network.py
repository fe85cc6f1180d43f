"""The lines between stations and register, one TCP proxy each, that can be made to fail.

Runs on an event loop in a thread of its own; every method may be called from any thread. Bytes are
passed on as they come: TLS goes end to end through it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

_CHUNK = 16_384
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST, as a line that breaks does


@dataclass(frozen=True)
class Quality:
    """How a line is.

    Attributes:
        up: connections are made and kept; else they are reset.
        silent: connections are made, but nothing arrives.
        delay_s: added to every chunk on its way, seconds.
        bytes_per_s: bound of the throughput each way; 0 for none.
    """

    up: bool = True
    silent: bool = False
    delay_s: float = 0.0
    bytes_per_s: float = 0.0


GOOD = Quality()
CUT = Quality(up=False)
SILENT = Quality(silent=True)
# A crowded 2G line (GPRS class 10 gives 20 to 40 kbit/s upwards).
SLOW = Quality(delay_s=0.3, bytes_per_s=4_000)


class Line:
    """One station's way to the register.

    Attributes:
        address: host:port for the station.
    """

    def __init__(self, target: str, loop: asyncio.AbstractEventLoop) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host.strip("[]"), int(port))
        self._loop = loop
        self._quality = GOOD
        self._changed = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()
        self._ways: set[asyncio.Future[None]] = set()
        self._server: asyncio.Server | None = None
        self.address = ""

    def become(self, quality: Quality) -> None:
        """From now on the line is like this. Breaking it breaks what is open."""
        _wait(self._become(quality), self._loop)

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        await self._become(CUT)
        for way in self._ways:
            way.cancel()
        if self._server is not None:
            self._server.close()

    async def _become(self, quality: Quality) -> None:
        self._quality = quality
        self._changed.set()
        self._changed = asyncio.Event()
        if not quality.up:
            for writer in tuple(self._open):
                _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._quality.up:
            _reset(writer)
            return
        try:
            there_reader, there_writer = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(writer)  # nobody listens there: as if there were no proxy
            return
        ends = {writer, there_writer}
        self._open |= ends
        try:
            ways = {
                asyncio.ensure_future(self._pass_on(reader, there_writer)),
                asyncio.ensure_future(self._pass_on(there_reader, writer)),
            }
            self._ways |= ways
            done, others = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for other in others:
                other.cancel()
            await asyncio.gather(*done, *others, return_exceptions=True)
            self._ways -= ways
        finally:
            self._open -= ends
            for end in ends:
                _reset(end)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await source.read(_CHUNK):
                while self._quality.silent:
                    await self._changed.wait()
                quality = self._quality
                wait_s = quality.delay_s
                if quality.bytes_per_s:
                    wait_s += len(chunk) / quality.bytes_per_s
                if wait_s:
                    await asyncio.sleep(wait_s)
                sink.write(chunk)
                await sink.drain()


@contextmanager
def network(target: str, lines: int) -> Iterator[list[Line]]:
    """So many lines to one address, until the block ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="network", daemon=True)
    thread.start()
    made = [Line(target, loop) for _ in range(lines)]
    try:
        for line in made:
            _wait(line.listen(), loop)
        yield made
    finally:
        for line in made:
            _wait(line.close(), loop)
        _wait(_finish(), loop)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _finish() -> None:
    """Let every connection see its end."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*left, return_exceptions=True)


def _wait(work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> None:
    asyncio.run_coroutine_threadsafe(work, loop).result()


def _reset(writer: asyncio.StreamWriter) -> None:
    end = writer.get_extra_info("socket")
    if end is not None and not writer.transport.is_closing():
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
