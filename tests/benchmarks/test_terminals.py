"""The load test of connected terminals, in small: its figures are there, and nothing is lost."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from benchmarks import terminals
from benchmarks.terminals import frames, look_up, measure


def test_frames_are_taken_whole_and_the_rest_stays() -> None:
    ping = b"\0\0\x08\x06\x00\0\0\0\0" + b"12345678"
    buffer = bytearray(terminals.PREFACE[24:] + ping + ping[:12])
    assert list(frames(buffer)) == [(4, 0, b""), (6, 0, b"12345678")]
    assert buffer == ping[:12]


@pytest.mark.slow
def test_two_hundred_terminals_and_three_enrolments_a_second(tmp_path: Path) -> None:
    figures = measure(tmp_path / "work", [200], [3.0], 20.0, 30, 8)
    assert figures["lost"] == 0
    assert figures["connected_at_the_end"] >= 200
    (row,) = figures["rates"]
    assert figures["acknowledged"] + sum(row["refused"].values()) == 60
    assert row["refused_with_retry_hint"] == sum(row["refused"].values())
    assert set(figures["states"]) == {"ENROLLED"}
    assert 0 < figures["kib_per_connection"] < 400
    # The check of what was lost can fail: this application was never there.
    assert look_up(tmp_path / "work", {"key": "A-never"}) == Counter()
