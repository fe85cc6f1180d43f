from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from devices.simulator.network import CUT, GOOD, SILENT, Line, Quality, network


class Echo:
    """Answers every connection with what it sent."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client:
            try:
                while chunk := client.recv(65_536):
                    client.sendall(chunk)
            except OSError:
                return


@pytest.fixture
def line() -> Iterator[Line]:
    echo = Echo()
    with network(echo.address, 2) as lines:
        yield lines[0]
    echo.close()


def connected(line: Line) -> socket.socket:
    host, port = line.address.split(":")
    end = socket.create_connection((host, int(port)), timeout=5)
    end.settimeout(5)
    return end


def asked(end: socket.socket, content: bytes) -> bytes:
    end.sendall(content)
    got = b""
    while len(got) < len(content):
        chunk = end.recv(65_536)
        if not chunk:
            raise ConnectionError("the other end has gone")
        got += chunk
    return got


def test_a_good_line_passes_everything_on(line: Line) -> None:
    content = bytes(range(256)) * 2_000
    with connected(line) as end:
        assert asked(end, content) == content


def test_a_cut_line_breaks_what_is_open_and_refuses_what_is_new(line: Line) -> None:
    with connected(line) as end:
        assert asked(end, b"hello") == b"hello"
        line.become(CUT)
        with pytest.raises(ConnectionError):
            asked(end, b"hello")
    with pytest.raises(ConnectionError), connected(line) as end:
        asked(end, b"hello")
    line.become(GOOD)
    with connected(line) as end:
        assert asked(end, b"hello") == b"hello"


def test_on_a_silent_line_nothing_arrives_until_it_speaks_again(line: Line) -> None:
    with connected(line) as end:
        assert asked(end, b"before") == b"before"
        line.become(SILENT)
        end.sendall(b"lost?")
        end.settimeout(0.3)
        with pytest.raises(TimeoutError):
            end.recv(10)
        line.become(GOOD)
        end.settimeout(5)
        assert end.recv(10) == b"lost?"


def test_a_slow_line_takes_its_time(line: Line) -> None:
    line.become(Quality(delay_s=0.1, bytes_per_s=10_000))
    with connected(line) as end:
        started = time.monotonic()
        assert asked(end, b"x" * 1_000) == b"x" * 1_000
        # Two ways, each with its delay and 0.1 s of bytes.
        assert time.monotonic() - started >= 0.4


def test_a_register_that_is_away_looks_like_a_broken_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    with (
        network(address, 1) as (line,),
        pytest.raises(ConnectionError),
        connected(line) as end,
    ):
        asked(end, b"hello")
