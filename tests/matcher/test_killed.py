"""Killed while it saves, clears and enrols: what was saved last opens, and is what it says."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from matcher.matcher import Matcher
from matcher.synthetic import Population

KEY = bytes(range(32))
PEOPLE = 30

BUSY = """
import sys, threading, time
from pathlib import Path
from matcher.matcher import Matcher
from matcher.synthetic import Population
matcher = Matcher.open(Path(sys.argv[1]), key=bytes(range(32)))
fingers = [Population(6).impression(number) for number in range(30)]
change = matcher.sequence

def save():
    while True:
        matcher.snapshot()

def clear():
    while True:
        time.sleep(0.05)
        if matcher._clearing.acquire(blocking=False):
            matcher._clear()

matcher.snapshot()
for work in (save, clear):
    threading.Thread(target=work, daemon=True).start()
print("busy", flush=True)
while True:
    time.sleep(0.001)
    # Change n enrols person n % 30, or withdraws who is enrolled.
    change += 1
    name = f"p{change % 30}"
    if name in matcher:
        matcher.withdraw(name, change)
    else:
        matcher.add(name, [fingers[change % 30]], change)
"""


def test_whatever_it_was_doing_the_snapshot_opens_clean(tmp_path: Path) -> None:
    fingers = [Population(6).impression(number) for number in range(PEOPLE)]
    sequences = []
    for kill in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", BUSY, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "busy\n"
        time.sleep(0.4 + 0.1 * kill)
        process.send_signal(signal.SIGKILL)
        process.wait()
        matcher = Matcher.open(tmp_path, key=KEY)
        sequences.append(matcher.sequence)
        # Change n is about person n % PEOPLE, each time the other way round.
        enrolled = {
            number
            for number in range(PEOPLE)
            if len(range(number or PEOPLE, matcher.sequence + 1, PEOPLE)) % 2 == 1
        }
        assert len(matcher) == len(enrolled)
        for number in range(PEOPLE):
            assert (f"p{number}" in matcher) == (number in enrolled)
            found = matcher.identify([fingers[number]], limit=1).candidates if enrolled else ()
            if number in enrolled:
                assert found[0].subject_id == f"p{number}"
    assert sequences == sorted(sequences)
    assert sequences[-1] > 0
