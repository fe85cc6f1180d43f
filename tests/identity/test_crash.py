"""kill -9 under load: what was acknowledged is there, and nobody is there twice.

The server runs in a process of its own and is killed at random moments while terminals enrol.
"""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from anju.v1 import audit_pb2, audit_pb2_grpc, enrolment_pb2, enrolment_pb2_grpc
from devices.errors import UnreachableError
from devices.terminal import Connection, connect
from identity.app import open_installation
from identity.server_process import ServerProcess, loopback_toml, serving
from identity.setup import create_installation
from tests.identity.kit import records
from tests.identity.service_kit import admit_terminal, application, working_at

THREADS = 4
ROUNDS = 3
PEOPLE_A_ROUND = 20
SEED = 9

Enrolled = enrolment_pb2.Application


@dataclass
class Load:
    """People who are enrolled from several threads, and what they were told."""

    told: dict[int, Enrolled] = field(default_factory=dict)
    unanswered: set[int] = field(default_factory=set)

    def request(self, person: int) -> enrolment_pb2.EnrolRequest:
        # Every third person asks for no permit; the key is the person's own and never changes.
        return application(person, permit=person % 3 != 0, key=f"the-key-of-person-{person:06}")

    def enrol(
        self, terminals: Sequence[Connection], people: Sequence[int], patience_s: float
    ) -> None:
        def one(person: int) -> None:
            stub = enrolment_pb2_grpc.EnrolmentServiceStub(
                terminals[person % len(terminals)].channel
            )
            try:
                answer = terminals[person % len(terminals)].call(
                    stub.Enrol, self.request(person), patience_s
                )
            except UnreachableError:
                self.unanswered.add(person)
                return
            self.told[person] = answer.application
            self.unanswered.discard(person)

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(one, people))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "anju"
    create_installation(made, loopback_toml()[0])
    with open_installation(made) as installation:
        for number in (1, 2):
            admit_terminal(installation, f"gate-{number}", f"hall-{number}")
    return made


def terminals_of(directory: Path) -> list[Connection]:
    return [working_at(directory / "terminals" / f"hall-{number}") for number in (1, 2)]


def kill_after(server: ServerProcess, load: Load, answers: int, delay_s: float) -> threading.Thread:
    """Kill the server a little after that many answers, while others are on their way."""

    def strike() -> None:
        end = time.monotonic() + 60.0
        while len(load.told) < answers and time.monotonic() < end:
            time.sleep(0.001)
        time.sleep(delay_s)
        server.process.kill()

    thread = threading.Thread(target=strike)
    thread.start()
    return thread


def same_answer(first: Enrolled, again: Enrolled) -> bool:
    return (
        first.application_id == again.application_id
        and first.registrant_id == again.registrant_id
        and first.state == again.state
        and first.permit.permit_number == again.permit.permit_number
    )


def check_everybody(directory: Path, load: Load, round_: int) -> None:
    """On a server that has just started: nobody acknowledged is lost, nobody counted twice."""
    terminals = terminals_of(directory)
    everybody = sorted(load.told.keys() | load.unanswered)
    if not everybody:
        return
    acknowledged = dict(load.told)
    again = Load(unanswered=set(everybody))
    again.enrol(terminals, everybody, patience_s=60.0)
    assert not again.unanswered
    for person, told in acknowledged.items():
        assert same_answer(told, again.told[person]), f"person {person} was told something else"
    states = {person: answer.state for person, answer in again.told.items()}
    assert set(states.values()) == {enrolment_pb2.APPLICATION_STATE_ENROLLED}
    assert len({answer.registrant_id for answer in again.told.values()}) == len(everybody)
    permits = [answer.permit.permit_number for answer in again.told.values()]
    issued = [number for number in permits if number]
    assert len(set(issued)) == len(issued)
    assert len(issued) == sum(person % 3 != 0 for person in everybody)
    load.told.update(again.told)
    load.unanswered.clear()
    # The index finds them: the same fingers under another name are a case about that registrant.
    stub = enrolment_pb2_grpc.EnrolmentServiceStub(terminals[0].channel)
    for person in random.Random(round_).sample(everybody, min(6, len(everybody))):
        double = stub.Enrol(
            application(person, name=5_000 + 100 * round_ + person, impression=1, permit=False)
        ).application
        assert double.state == enrolment_pb2.APPLICATION_STATE_IN_ADJUDICATION
    for terminal in terminals:
        terminal.close()
    with connect(directory / "operators" / "operator-1") as operator:
        chain = audit_pb2_grpc.AuditServiceStub(operator.channel)
        assert chain.VerifyChain(audit_pb2.VerifyChainRequest()).intact


def test_a_server_killed_under_load_forgets_nobody_and_doubles_nobody(directory: Path) -> None:
    rng = random.Random(SEED)
    load = Load()
    killed_at_work = 0
    for person in range(ROUNDS * PEOPLE_A_ROUND):
        records(person)  # made before the clock starts
    for round_ in range(ROUNDS):
        people = range(round_ * PEOPLE_A_ROUND, (round_ + 1) * PEOPLE_A_ROUND)
        with serving(directory) as server:
            check_everybody(directory, load, round_)
            terminals = terminals_of(directory)
            answers = len(load.told) + rng.randint(1, PEOPLE_A_ROUND // 2)
            strike = kill_after(server, load, answers, rng.uniform(0.0, 0.02))
            load.enrol(terminals, people, patience_s=0.4)
            strike.join()
            server.process.wait()
            for terminal in terminals:
                terminal.close()
        killed_at_work += bool(load.unanswered) and len(load.told) > 0
        if round_ == 1:
            shutil.rmtree(directory / "index", ignore_errors=True)
    assert killed_at_work, "no round was killed while it worked: the test shows nothing"
    with serving(directory) as server:
        assert server.serving["references"] >= 2 * len(load.told)
        check_everybody(directory, load, ROUNDS)

    # Asked to stop, it finishes and leaves a snapshot, which spares the next start the replay.
    assert server.process.returncode == 0
    with serving(directory) as server:
        assert server.serving["replayed"] == 0
        assert server.serving["references"] == 2 * ROUNDS * PEOPLE_A_ROUND
