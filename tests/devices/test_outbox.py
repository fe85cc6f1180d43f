"""Store and forward against a real register over loopback, and whatever can break in between.

The register's memory (:class:`Enrolments`) outlives its server, as a database does.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from anju.v1 import common_pb2, enrolment_pb2
from devices import credentials
from devices.authority import Authority
from devices.errors import (
    CredentialsError,
    FingersUnexplainedError,
    OfflineTooLongError,
    QueueError,
)
from devices.provisioning import Provisioning
from devices.terminal import (
    ApplicationState,
    EntryState,
    Limits,
    Outbox,
    TerminalClient,
)
from devices.terminal.disk import Disk
from devices.terminal.sending import SendPolicy
from devices.terminal.submission import person_from
from devices.types import Role
from tests.devices.loopback import Enrolments, Proxy, Register, refuse, register
from tests.devices.terminal_kit import (
    PROMPT,
    Clock,
    Fate,
    Killed,
    drop,
    logged_in,
    mortal,
    person_json,
    record_of,
    told,
)

Code = grpc.StatusCode
FAULT_SEED = 20260302
FAULT_RUNS = 40


@dataclass
class Moody(Enrolments):
    """A register that dies before or after it has committed, when told.

    Attributes:
        moods: taken one a call: ``""`` well, ``before`` and ``after`` its commit the connection is
            cut, ``stop`` the server goes away after its commit, ``busy`` and ``broken`` refuse.
    """

    moods: list[str] = field(default_factory=list)
    cut: Callable[[], None] = lambda: None
    stopped: bool = False

    def Enrol(
        self, request: enrolment_pb2.EnrolRequest, context: grpc.ServicerContext
    ) -> enrolment_pb2.EnrolResponse:
        mood = self.moods.pop(0) if self.moods else ""
        if mood == "before":
            self.cut()
            context.abort(Code.UNAVAILABLE, "gone")
        if mood == "busy":
            refuse(context, Code.RESOURCE_EXHAUSTED, "BUSY", "too many at once")
        if mood == "broken":
            refuse(context, Code.INTERNAL, "INTERNAL", "an internal error occurred")
        answer = super().Enrol(request, context)
        if mood in ("after", "stop"):
            self.stopped = mood == "stop"
            self.cut()
            context.abort(Code.UNAVAILABLE, "gone")
        return answer


@pytest.fixture
def enrolments() -> Moody:
    return Moody()


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def outbox(home: Path, spool: Path) -> Iterator[Outbox]:
    with Outbox(home, spool, policy=PROMPT) as outbox:
        yield outbox


def submit(outbox: Outbox, number: int = 1) -> str:
    person = person_from(person_json(number))
    return outbox.submit(person, [record_of(number)], label=f"ticket {number}").key


# -- what an answer means --


def test_a_submission_is_kept_then_sent_then_forgotten(
    outbox: Outbox, running: Register, home: Path
) -> None:
    key = submit(outbox)
    assert outbox.entry(key).state is EntryState.QUEUED
    assert running.enrolments.requests == []
    assert outbox.send()
    sent = outbox.entry(key)
    assert sent.state is EntryState.SENT
    assert sent.application is not None
    assert sent.application.state is ApplicationState.ENROLLED
    [request] = running.enrolments.requests
    assert request.idempotency_key == key
    assert request.details.document_number == "doc-1"
    assert request.HasField("captured_at")
    assert outbox.notices() == []
    with TerminalClient(home) as terminal:
        assert terminal.application(sent.application.application_id).permit is not None
    outbox.send()
    assert len(running.enrolments.requests) == 1


def test_a_lost_answer_is_asked_for_again_with_the_same_bytes(
    outbox: Outbox, running: Register, enrolments: Moody
) -> None:
    enrolments.moods = ["after", "before", "after"]
    key = submit(outbox)
    for _ in range(4):
        outbox.send()
    assert outbox.entry(key).state is EntryState.SENT
    first, *others = running.enrolments.requests
    assert len(others) == 2
    assert all(other == first for other in others)
    assert len(enrolments.answers) == 1


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (Code.INVALID_ARGUMENT, "FAILURE_TO_ENROL"),
        (Code.FAILED_PRECONDITION, "X"),
        (Code.ALREADY_EXISTS, "IDEMPOTENCY_CONFLICT"),
        (Code.NOT_FOUND, "X"),
    ],
)
def test_a_refusal_needs_attention_with_its_reason_and_others_go_on(
    outbox: Outbox, enrolments: Moody, code: grpc.StatusCode, reason: str
) -> None:
    def hook(number: int, context: grpc.ServicerContext) -> None:
        if number == 0:
            refuse(context, code, reason, "finger 2 is too poor: capture it again")

    enrolments.hook = hook
    bad, good = submit(outbox, 1), submit(outbox, 2)
    outbox.send()
    entry = outbox.entry(bad)
    assert entry.state is EntryState.ATTENTION
    assert (entry.status, entry.reason) == (code.name, reason)
    assert entry.message == "finger 2 is too poor: capture it again"
    assert outbox.entry(good).state is EntryState.SENT
    assert any("need attention" in notice for notice in outbox.notices())
    outbox.send()
    assert len(enrolments.requests) == 2
    outbox.queue.retry(bad)
    outbox.send()
    assert outbox.entry(bad).state is EntryState.SENT


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (Code.UNAVAILABLE, ""),
        (Code.UNAVAILABLE, "SEARCH_INCOMPLETE"),
        (Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
        (Code.CANCELLED, ""),
        (Code.RESOURCE_EXHAUSTED, "DISK_FULL"),
        (Code.ABORTED, "X"),
        (Code.PERMISSION_DENIED, "CERTIFICATE_REVOKED"),
        (Code.UNAUTHENTICATED, "CERTIFICATE_INVALID"),
    ],
)
def test_a_register_that_takes_nothing_now_is_left_in_peace(
    outbox: Outbox, enrolments: Moody, code: grpc.StatusCode, reason: str
) -> None:
    def hook(number: int, context: grpc.ServicerContext) -> None:
        if number == 0:
            refuse(context, code, reason, "not now") if reason else context.abort(code, "not now")

    enrolments.hook = hook
    keys = [submit(outbox, 1), submit(outbox, 2)]
    outbox.send()
    assert len(enrolments.requests) == 1  # the second was not even tried
    assert [outbox.entry(key).state for key in keys] == [EntryState.QUEUED] * 2
    assert outbox.notices()
    outbox.send()
    assert [outbox.entry(key).state for key in keys] == [EntryState.SENT] * 2
    assert outbox.notices() == []


def test_one_submission_the_register_breaks_on_does_not_hold_up_the_others(
    home: Path, enrolments: Moody
) -> None:
    def hook(number: int, context: grpc.ServicerContext) -> None:
        if enrolments.requests[number].details.document_number == "doc-1":
            refuse(context, Code.INTERNAL, "INTERNAL", "an internal error occurred")

    enrolments.hook = hook
    with Outbox(home, policy=SendPolicy(first_wait_s=0, longest_wait_s=0, tries=3)) as outbox:
        poison, good = submit(outbox, 1), submit(outbox, 2)
        outbox.send()
        assert outbox.entry(good).state is EntryState.SENT
        assert outbox.entry(poison).state is EntryState.QUEUED
        outbox.send()
        outbox.send()
        assert outbox.entry(poison).status == "INTERNAL"
        assert outbox.entry(poison).state is EntryState.ATTENTION


def test_a_message_grpc_finds_too_large_needs_attention_in_the_end(
    home: Path, enrolments: Moody
) -> None:
    """RESOURCE_EXHAUSTED without anju's reason: the same bytes will never get through."""

    def hook(number: int, context: grpc.ServicerContext) -> None:
        context.abort(Code.RESOURCE_EXHAUSTED, "Received message larger than max")

    enrolments.hook = hook
    with Outbox(home, policy=SendPolicy(first_wait_s=0, longest_wait_s=0, tries=2)) as outbox:
        key = submit(outbox)
        outbox.send()
        outbox.send()
        assert outbox.entry(key).state is EntryState.ATTENTION


def test_pauses_grow_to_a_bound_and_begin_after_what_the_register_asked_for(
    home: Path, enrolments: Moody
) -> None:
    def hook(number: int, context: grpc.ServicerContext) -> None:
        details = [AnyMessage(), AnyMessage()]
        details[0].Pack(ErrorInfo(reason="BUSY", domain="anju"))
        retry = RetryInfo()
        retry.retry_delay.FromTimedelta(timedelta(seconds=30))
        details[1].Pack(retry)
        status = Status(code=Code.RESOURCE_EXHAUSTED.value[0], message="busy", details=details)
        context.abort_with_status(rpc_status.to_status(status))

    enrolments.hook = hook
    now, bounds = [0.0], []

    def uniform(low: float, high: float) -> float:
        bounds.append(high)
        return high

    policy = SendPolicy(first_wait_s=1, longest_wait_s=5, monotonic=lambda: now[0], uniform=uniform)
    with Outbox(home, policy=policy) as outbox:
        submit(outbox)
        for pause in (31, 32, 34, 35, 35):
            assert outbox.send()
            now[0] += pause - 0.5
            assert not outbox.send()  # too early: nothing is tried
            now[0] += 0.5
    assert bounds == [1, 2, 4, 5, 5]
    assert len(enrolments.requests) == 5


def test_an_application_that_settles_later_is_followed(outbox: Outbox, enrolments: Moody) -> None:
    key = submit(outbox)
    accepted = enrolment_pb2.Application(
        application_id="a-1", state=enrolment_pb2.APPLICATION_STATE_ACCEPTED
    )
    enrolments.answers[key] = enrolments.by_id["a-1"] = accepted
    with Outbox(outbox._directory, policy=SendPolicy(refresh_every_s=0)) as eager:
        eager.send()
        first = eager.entry(key).application
        assert first is not None
        assert first.state is ApplicationState.ACCEPTED
        accepted.state = enrolment_pb2.APPLICATION_STATE_ENROLLED
        eager.send()
        settled = eager.entry(key).application
        assert settled is not None
        assert settled.state is ApplicationState.ENROLLED


def test_one_sender_at_a_time(home: Path, enrolments: Moody) -> None:
    inside, release = threading.Event(), threading.Event()

    def hook(number: int, context: grpc.ServicerContext) -> None:
        inside.set()
        release.wait(10)

    enrolments.hook = hook
    with Outbox(home, policy=PROMPT) as one, Outbox(home, policy=PROMPT) as two:
        submit(one)
        thread = threading.Thread(target=one.send)
        thread.start()
        assert inside.wait(10)
        assert not two.send()
        assert not one.send()
        release.set()
        thread.join(10)
        assert two.send()
    assert len(enrolments.requests) == 1


# -- what an operator is told --


def test_missing_contact_is_warned_of_before_it_stops_the_terminal(home: Path) -> None:
    clock = Clock()
    limits = Limits(offline_limit=timedelta(days=3), offline_warning=timedelta(days=2))
    with Outbox(home, limits=limits, policy=PROMPT, now=clock) as outbox:
        clock.advance(timedelta(days=1))
        assert outbox.notices() == []
        clock.advance(timedelta(days=1))
        [notice] = outbox.notices()
        assert "for 2 days; in 24 h this terminal stops" in notice
        key = submit(outbox, 1)
        clock.advance(timedelta(days=1))
        with pytest.raises(OfflineTooLongError):
            submit(outbox, 2)
        assert "nothing more is taken" in outbox.notices()[0]
        outbox.send()
        assert outbox.entry(key).state is EntryState.SENT
        assert outbox.notices() == []
        submit(outbox, 2)


def test_the_settings_beside_the_credentials_hold_for_whoever_opens_the_queue(home: Path) -> None:
    (home / "terminal.toml").write_text("offline_limit_days = 3\nfingers_asked = 2\n")
    clock = Clock()
    with Outbox(home, policy=PROMPT, now=clock) as outbox:
        with pytest.raises(FingersUnexplainedError, match="2 fingers are asked for and 1"):
            submit(outbox, 1)
        limits = outbox.queue.limits
        assert (limits.offline_limit.days, limits.offline_warning.days) == (3, 2)
        assert limits.max_entries == Limits().max_entries


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("offline_limit = 3", "offline_limit is unknown; expected fingers_asked"),
        ("offline_limit_days = 0", "a whole number from 1 on"),
        ("fingers_asked = 11", "at most 10"),
        ("max_mib = true", "a whole number"),
        ("max_mib =", "cannot read"),
        ("offline_limit_days = 2\noffline_warning_days = 3", "must come before its limit"),
    ],
)
def test_settings_that_make_no_sense_are_refused(home: Path, text: str, complaint: str) -> None:
    (home / "terminal.toml").write_text(text)
    with pytest.raises((CredentialsError, QueueError), match=complaint):
        Outbox(home)


def test_a_nearly_full_queue_is_told(home: Path) -> None:
    with Outbox(home, limits=Limits(max_entries=5), policy=PROMPT) as outbox:
        for number in range(4):
            submit(outbox, number)
        assert outbox.notices() == ["the queue is 80% full"]


def test_a_revoked_terminal_keeps_what_it_has_and_says_so(
    outbox: Outbox, provisioning: Provisioning, enrolments: Moody
) -> None:
    key = submit(outbox)
    provisioning.revoke("t-1", "stolen")
    before = outbox.queue.last_contact()
    outbox.send()
    assert outbox.entry(key).state is EntryState.QUEUED
    assert any("CERTIFICATE_REVOKED" in notice for notice in outbox.notices())
    assert outbox.queue.last_contact() == before  # so it does not go on for ever
    assert enrolments.requests == []


def test_an_unprovisioned_directory_has_no_outbox(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match="provision this terminal first"):
        Outbox(tmp_path)


# -- the certificate --


def shorten(home: Path, authority: Authority, left: timedelta) -> None:
    """Give the terminal, and the register's record of it, a certificate that soon expires."""
    key = credentials.load_key(home)
    certificate = authority.issue_client(key.public_key(), Role.TERMINAL, "t-1", "hall", left)
    credentials.renew(home, certificate.public_bytes(Encoding.DER))


def admit_all(provisioning: Provisioning, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provisioning, "admit", lambda principal: None)


def test_the_certificate_is_renewed_by_itself(
    home: Path, authority: Authority, enrolments: Moody
) -> None:
    """Whatever is on record: one that runs for 20 more days is renewed before anything is sent."""
    before = (home / "certificate.pem").read_bytes()
    soon = datetime.now(UTC) + timedelta(days=69)

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return soon

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("devices.terminal.client.datetime", Later)
        with Outbox(home, policy=PROMPT) as outbox:
            key = submit(outbox)
            outbox.send()
            assert outbox.entry(key).state is EntryState.SENT
    assert (home / "certificate.pem").read_bytes() != before
    assert len(enrolments.requests) == 1


def test_a_renewal_that_is_refused_stops_nothing_and_is_told(
    home: Path,
    authority: Authority,
    provisioning: Provisioning,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shorten(home, authority, timedelta(days=10))
    admit_all(provisioning, monkeypatch)  # but renewal looks at the record: not this certificate
    with Outbox(home, policy=PROMPT) as outbox:
        key = submit(outbox)
        outbox.send()
        assert outbox.entry(key).state is EntryState.SENT
        [notice] = outbox.notices()
        assert "expires in 9 days and is not renewed" in notice
        assert "CERTIFICATE_REVOKED" in notice


def test_an_expired_certificate_keeps_everything_and_is_told(
    home: Path, authority: Authority, enrolments: Moody
) -> None:
    with Outbox(home, policy=PROMPT) as outbox:
        key = submit(outbox)
        shorten(home, authority, timedelta(seconds=-1))
        outbox.send()
        assert outbox.entry(key).state is EntryState.QUEUED
        assert any("new provisioning token" in notice for notice in outbox.notices())


# -- the spool folder --


def test_a_drop_is_taken_sent_and_told(
    outbox: Outbox, spool: Path, running: Register, home: Path
) -> None:
    name = drop(spool, 1)
    outbox.take()
    assert sorted(path.name for path in spool.iterdir()) == [f"{name}.state"]
    assert told(spool, name)["state"] == "queued"
    outbox.send()
    outbox.take()
    state = told(spool, name)
    assert (state["state"], state["application_state"]) == ("sent", "ENROLLED")
    [request] = running.enrolments.requests
    assert request.samples[0].position == 2
    assert request.samples[0].data == record_of(1)
    assert request.captured_at.ToJsonString() == "2026-03-02T09:30:00Z"


def test_a_drop_names_the_format_of_each_record(
    outbox: Outbox, spool: Path, running: Register
) -> None:
    file = "visit-1-right-index.iso"
    drop(spool, 1, samples=[{"file": file, "format": "ansi-incits-378-2004"}, {"file": file}])
    outbox.take()
    outbox.send()
    [request] = running.enrolments.requests
    assert [sample.format for sample in request.samples] == [
        common_pb2.SAMPLE_FORMAT_ANSI_INCITS_378_2004,
        common_pb2.SAMPLE_FORMAT_ISO_19794_2_2005,
    ]


def test_a_refused_drop_is_told_with_the_reason(
    outbox: Outbox, spool: Path, enrolments: Moody
) -> None:
    enrolments.hook = lambda number, context: refuse(
        context, Code.INVALID_ARGUMENT, "FAILURE_TO_ENROL", "finger 2 is too poor"
    )
    name = drop(spool, 1)
    outbox.take()
    outbox.send()
    outbox.take()
    state = told(spool, name)
    assert state["state"] == "needs attention"
    assert (state["reason"], state["message"]) == ("FAILURE_TO_ENROL", "finger 2 is too poor")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"samples": [{"file": "missing.iso"}]}, "no file 'missing.iso'"),
        ({"samples": [{"file": "../t/key.pem"}]}, "name of a file beside"),
        ({"samples": [{"file": "visit-1-right-index.iso", "position": 11}]}, "0 to 10"),
        (
            {"samples": [{"file": "visit-1-right-index.iso", "format": "iso"}]},
            "one of iso-19794-2-2005, iso-19794-2-2011",
        ),
        ({"samples": []}, "1 to 10 fingers"),
        ({"permit_requested": "yes"}, "true or false"),
        ({"captured_at": "2026-03-02 17:30"}, "offset"),
        ({"captured_at": "yesterday"}, "ISO 8601"),
        ({"sample": 1}, "unknown ['sample']"),
        ({"person": {"full_name": "x"}}, "missing"),
        ({"person": {**person_json(1), "gender": "F"}}, "male, female or other"),
        ({"person": {**person_json(1), "full_name": 7}}, "must be a text"),
    ],
)
def test_a_drop_that_is_wrong_stays_and_is_told_until_it_is_right(
    outbox: Outbox, spool: Path, changes: dict[str, object], complaint: str
) -> None:
    name = drop(spool, 1, **changes)
    outbox.take()
    outbox.take()
    state = told(spool, name)
    assert (state["state"], state["reason"]) == ("not taken", "SUBMISSION_INVALID")
    assert complaint in state["message"]
    assert outbox.queue.entries() == []
    assert (spool / f"{name}.json").exists()
    drop(spool, 1)
    outbox.take()
    assert told(spool, name)["state"] == "queued"


def test_a_drop_for_a_full_queue_waits_in_the_folder(home: Path, spool: Path) -> None:
    with Outbox(home, spool, Limits(max_entries=1), PROMPT) as outbox:
        drop(spool, 1)
        name = drop(spool, 2)
        outbox.take()
        assert told(spool, name)["reason"] == "QUEUE_FULL"
        outbox.send()
        outbox.take()
        assert told(spool, name)["state"] == "queued"


@pytest.mark.skipif(not hasattr(Path, "symlink_to"), reason="needs symbolic links")
def test_a_link_out_of_the_folder_is_not_followed(outbox: Outbox, spool: Path, home: Path) -> None:
    spool.mkdir(exist_ok=True)
    (spool / "finger.iso").symlink_to(home / "key.pem")
    name = drop(spool, 1, samples=[{"file": "finger.iso"}])
    outbox.take()
    assert "no file" in told(spool, name)["message"]


def test_the_same_drop_twice_is_one_submission(
    outbox: Outbox, spool: Path, enrolments: Moody
) -> None:
    for _ in range(2):
        drop(spool, 1)
        outbox.take()
        outbox.send()
    assert len(outbox.queue.entries()) == 1
    assert len(enrolments.requests) == 1


def test_state_files_of_forgotten_submissions_are_forgotten(home: Path, spool: Path) -> None:
    clock = Clock()
    with Outbox(home, spool, policy=PROMPT, now=clock) as outbox:
        drop(spool, 1)
        outbox.take()
        outbox.send()
        clock.advance(timedelta(days=31))
        outbox.queue.contacted()
        outbox.send()
        outbox.take()
    assert list(spool.iterdir()) == []


def test_running_takes_sends_and_stops(home: Path, spool: Path) -> None:
    stop, seen = threading.Event(), []
    name = drop(spool, 1)

    def look(outbox: Outbox) -> None:
        seen.append([one.state for one in outbox.queue.entries()])
        if seen[-1] == [EntryState.SENT]:
            stop.set()

    with Outbox(home, spool, policy=PROMPT) as outbox:
        threading.Timer(20, stop.set).start()
        outbox.run(stop, look)
    assert [EntryState.SENT] in seen
    assert told(spool, name)["state"] == "sent"


def test_a_sender_that_fails_stops_the_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Outbox(home, policy=PROMPT) as outbox:
        monkeypatch.setattr(outbox, "send", lambda stopping: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            outbox.run(threading.Event())


# -- nothing lost, nobody twice --


@dataclass
class World:
    """A terminal, a register that comes back elsewhere, and a proxy that keeps the address."""

    authority: Authority
    provisioning: Provisioning
    home: Path
    spool: Path
    proxy: Proxy
    enrolments: Moody
    people: int

    def outbox(self, disk: Callable[[Path], Disk] = Disk) -> Outbox:
        return Outbox(self.home, self.spool, None, PROMPT, self.proxy.address, disk=disk)

    def work(self, disk: Callable[[Path], Disk] = Disk, rounds: int = 1) -> None:
        with self.outbox(disk) as outbox:
            for _ in range(rounds):
                outbox.take()
                outbox.send()
            outbox.take()

    def check(self) -> None:
        """Work without faults until all is sent, then hold the register against the truth."""
        self.enrolments.moods.clear()
        for _ in range(50):
            with self.outbox() as outbox:
                outbox.take()
                outbox.send()
                outbox.take()
                entries = outbox.queue.entries()
                if all(one.state is EntryState.SENT for one in entries) and not list(
                    self.spool.glob("*.json")
                ):
                    break
        assert Counter(one.state for one in entries) == {EntryState.SENT: self.people}
        assert len(self.enrolments.answers) == self.people  # one application a person
        assert len(self.enrolments.people) == self.people
        applications = {one.application.application_id for one in entries if one.application}
        assert applications == {one.application_id for one in self.enrolments.answers.values()}
        assert {one.suffix for one in self.spool.iterdir()} == {".state"}
        assert {told(self.spool, one.stem)["state"] for one in self.spool.iterdir()} == {"sent"}


@pytest.fixture
def world(
    authority: Authority,
    provisioning: Provisioning,
    enrolments: Moody,
    home: Path,
    running: Register,
) -> Iterator[Callable[[Path, int], World]]:
    with Proxy(running.main) as proxy:

        def make(where: Path, people: int) -> World:
            enrolments.answers.clear()
            enrolments.by_id.clear()
            enrolments.people.clear()
            enrolments.requests.clear()
            enrolments.moods.clear()
            enrolments.cut = proxy.cut
            mine = where / "t"
            mine.mkdir(parents=True)
            for file in ("key.pem", "certificate.pem", "ca.pem", "server"):
                (mine / file).write_bytes((home / file).read_bytes())
            (mine / "key.pem").chmod(0o600)
            logged_in(mine)
            made = World(authority, provisioning, mine, where / "spool", proxy, enrolments, people)
            for number in range(people):
                drop(made.spool, number)
            return made

        yield make


@pytest.mark.parametrize(
    "power", [0, 1, 2, 3], ids=lambda seed: f"power-{seed}" if seed else "kill"
)
def test_a_terminal_that_dies_at_any_step_loses_nothing_and_enrols_nobody_twice(
    world: Callable[[Path, int], World], tmp_path: Path, power: int
) -> None:
    deaths = 0
    for after in range(500):
        made = world(tmp_path / str(after), 2)
        fate = Fate(after, bool(power), seed=power)
        try:
            made.work(mortal(fate))
        except Killed:
            deaths += 1
            made.check()
        else:
            made.check()
            break
    assert deaths > 30, "the terminal has fewer steps than this test was written for"


def test_random_deaths_of_everything_lose_nothing_and_enrol_nobody_twice(
    world: Callable[[Path, int], World],
    running: Register,
    tmp_path: Path,
) -> None:
    """Terminal, power, connection and server die again and again, in random order."""
    chance = random.Random(FAULT_SEED)
    seen: Counter[str] = Counter()
    start = time.monotonic()
    for number in range(FAULT_RUNS):
        made = world(tmp_path / str(number), chance.randint(1, 4))
        moods = ["", "before", "after", "stop", "busy", "broken"]
        made.enrolments.moods = [chance.choice(moods) for _ in range(chance.randint(0, 8))]
        made.proxy.target(running.main)
        for _ in range(chance.randint(1, 6)):
            fate = Fate(chance.randint(0, 60), chance.random() < 0.5, chance.random())
            away = chance.random() < 0.2
            if away:
                made.proxy.target("127.0.0.1:9")  # nobody listens there
                made.proxy.cut()
            try:
                made.work(mortal(fate), rounds=chance.randint(1, 3))
            except Killed:
                seen["power lost" if fate.power else "terminal killed"] += 1
            seen["network away"] += away
            if made.enrolments.stopped or chance.random() < 0.2:
                # The old server is gone with its connections; a new one has the same memory.
                made.enrolments.stopped = False
                with register(made.authority, made.provisioning, made.enrolments) as another:
                    made.proxy.target(another.main)
                    made.proxy.cut()
                    made.work(rounds=1)
                made.proxy.cut()
                seen["server killed"] += 1
            made.proxy.target(running.main)
        made.check()
    assert time.monotonic() - start < 240
    assert min(seen[one] for one in ("power lost", "terminal killed", "network away")) >= 5
    assert seen["server killed"] >= 5


def test_the_test_above_notices_a_terminal_that_makes_its_key_too_late(
    world: Callable[[Path, int], World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof must be able to fail: with a fresh key per attempt, somebody is enrolled twice."""
    made = world(tmp_path / "late", 1)
    made.enrolments.moods = ["after"]
    fresh = itertools.count()

    def unstable(self: object, *parts: bytes) -> str:
        return f"{next(fresh):032}"

    monkeypatch.setattr("devices.terminal.queue.SubmissionQueue.key_for", unstable)
    for after in range(200):
        try:
            made.work(mortal(Fate(after)))
        except Killed:
            continue
        break
    with pytest.raises(AssertionError):
        made.check()
