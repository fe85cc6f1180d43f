"""A terminal's calls: what is sent, what is tried again, and what comes back when it fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import grpc
import pytest

from anju.v1 import common_pb2
from devices.authority import Authority
from devices.errors import CredentialsError, RemoteError, UnreachableError
from devices.provisioning import Provisioning
from devices.terminal import ApplicationState, Gender, Person, Sample, TerminalClient
from devices.terminal.retry import RetryPolicy, retrying
from tests.devices.loopback import Enrolments, Proxy, Register, refuse, register

QUICK = RetryPolicy(attempt_s=5.0, first_wait_s=0.02, longest_wait_s=0.05)


def person(document_number: str = "330106199001011234") -> Person:
    return Person(
        full_name="王秀英",
        gender=Gender.FEMALE,
        birth_date=date(1990, 1, 1),
        document_number=document_number,
        household_division_code="330106",
        residence_division_code="440305",
        residence_address="粤海街道1号",
        arrival_date=date(2026, 3, 1),
    )


@pytest.fixture
def terminal(provisioned: Path) -> Iterator[TerminalClient]:
    with TerminalClient(provisioned, policy=QUICK) as terminal:
        yield terminal


def test_an_application_arrives_as_it_was_given(
    running: Register, terminal: TerminalClient
) -> None:
    captured_at = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
    answer = terminal.enrol(person(), [b"one", Sample(b"two", 2)], captured_at=captured_at)
    assert answer.state is ApplicationState.ENROLLED
    assert answer.permit is not None
    assert answer.permit.qr_text == "6BF"
    assert terminal.application(answer.application_id) == answer

    [request] = running.enrolments.requests
    assert 16 <= len(request.idempotency_key) <= 64
    assert request.details.full_name == "王秀英"
    assert request.details.gender == common_pb2.GENDER_FEMALE
    assert request.details.birth_date == common_pb2.Date(year=1990, month=1, day=1)
    assert request.residence.division_code == "440305"
    assert request.residence.arrival_date == common_pb2.Date(year=2026, month=3, day=1)
    assert [sample.data for sample in request.samples] == [b"one", b"two"]
    assert [sample.position for sample in request.samples] == [0, 2]
    assert request.samples[0].format == common_pb2.SAMPLE_FORMAT_ISO_19794_2_2005
    assert request.captured_at.ToDatetime(tzinfo=UTC) == captured_at
    assert request.permit_requested


def fail_first(failures: list[grpc.StatusCode]) -> Callable[[int, grpc.ServicerContext], None]:
    def hook(number: int, context: grpc.ServicerContext) -> None:
        if number < len(failures):
            context.abort(failures[number], "not now")

    return hook


def test_an_unavailable_register_is_asked_again_under_the_same_key(
    running: Register, terminal: TerminalClient
) -> None:
    codes = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED]
    running.enrolments.hook = fail_first(codes)
    assert terminal.enrol(person(), [b"one"]).state is ApplicationState.ENROLLED
    keys = [request.idempotency_key for request in running.enrolments.requests]
    assert len(keys) == 3
    assert len(set(keys)) == 1


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.ALREADY_EXISTS,
    ],
)
def test_a_refusal_is_not_asked_again(
    running: Register, terminal: TerminalClient, code: grpc.StatusCode
) -> None:
    running.enrolments.hook = fail_first([code] * 9)
    with pytest.raises(RemoteError) as caught:
        terminal.enrol(person(), [b"one"])
    assert not isinstance(caught.value, UnreachableError)
    assert (caught.value.status, caught.value.reason) == (code.name, "")
    assert len(running.enrolments.requests) == 1


def test_a_busy_register_is_asked_again_after_the_time_it_named(
    running: Register, provisioned: Path
) -> None:
    waits: list[float] = []

    def hook(number: int, context: grpc.ServicerContext) -> None:
        if number < 2:
            refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "BUSY", "come back", retry_s=3)

    running.enrolments.hook = hook
    policy = RetryPolicy(sleep=waits.append, uniform=lambda low, high: 0.25)
    with TerminalClient(provisioned, policy=policy) as terminal:
        assert terminal.enrol(person(), [b"one"]).state is ApplicationState.ENROLLED
    assert waits == [3.25, 3.25]
    assert len({request.idempotency_key for request in running.enrolments.requests}) == 1


def test_a_refusal_carries_status_reason_and_message(
    running: Register, terminal: TerminalClient
) -> None:
    def hook(number: int, context: grpc.ServicerContext) -> None:
        text = "请重新采集：finger 1 is too poor"
        refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "FAILURE_TO_ENROL", text)

    running.enrolments.hook = hook
    with pytest.raises(RemoteError) as caught:
        terminal.enrol(person(), [b"one"])
    error = caught.value
    assert (error.status, error.reason) == ("INVALID_ARGUMENT", "FAILURE_TO_ENROL")
    assert error.message == "请重新采集：finger 1 is too poor"
    assert "王秀英" not in str(error)


def test_a_register_that_stays_away_is_given_up_at_the_deadline(
    running: Register, terminal: TerminalClient
) -> None:
    def hook(number: int, context: grpc.ServicerContext) -> None:
        refuse(context, grpc.StatusCode.UNAVAILABLE, "SEARCH_INCOMPLETE", "a shard is missing")

    running.enrolments.hook = hook
    with pytest.raises(UnreachableError) as caught:
        terminal.enrol(person(), [b"one"], deadline_s=0.4)
    assert caught.value.reason == "SEARCH_INCOMPLETE"
    assert len(running.enrolments.requests) > 2


def test_a_connection_reset_in_the_middle_of_a_call_enrols_once(
    running: Register, provisioned: Path
) -> None:
    """The register gets the application, and the answer is lost on the way back."""
    with Proxy(running.main) as proxy:

        def hook(number: int, context: grpc.ServicerContext) -> None:
            if number == 0:
                proxy.cut()

        running.enrolments.hook = hook
        with TerminalClient(provisioned, proxy.address, QUICK) as terminal:
            answer = terminal.enrol(person(), [b"one"])
            assert proxy.connections >= 2
    assert answer.state is ApplicationState.ENROLLED
    assert len(running.enrolments.answers) == 1
    assert list(running.enrolments.by_id) == [answer.application_id]


def test_a_register_that_restarts_in_the_middle_of_a_call_answers_after_it(
    authority: Authority, provisioning: Provisioning, running: Register, provisioned: Path
) -> None:
    arrived, stopped = threading.Event(), threading.Event()

    def hook(number: int, context: grpc.ServicerContext) -> None:
        arrived.set()
        stopped.wait(10)

    answers: list[object] = []
    with register(authority, provisioning, Enrolments(hook=hook)) as first:
        proxy = Proxy(first.main)
        terminal = TerminalClient(provisioned, proxy.address, QUICK)
        caller = threading.Thread(
            target=lambda: answers.append(terminal.enrol(person(), [b"one"], deadline_s=20))
        )
        caller.start()
        assert arrived.wait(10)
        threading.Timer(0.3, stopped.set).start()
    assert first.enrolments.requests
    proxy.target(running.main)
    caller.join(20)
    terminal.close()
    proxy.close()
    assert len(answers) == 1
    assert first.enrolments.requests[0] == running.enrolments.requests[0]


def test_a_silent_register_is_given_up_and_asked_again(
    running: Register, provisioned: Path
) -> None:
    release = threading.Event()

    def hook(number: int, context: grpc.ServicerContext) -> None:
        if number == 0:
            release.wait(10)

    running.enrolments.hook = hook
    short = RetryPolicy(attempt_s=0.3, first_wait_s=0.02)
    with TerminalClient(provisioned, policy=short) as terminal:
        assert terminal.enrol(person(), [b"one"]).state is ApplicationState.ENROLLED
    release.set()
    assert len(running.enrolments.requests) == 2


def test_an_unprovisioned_directory_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match="provision this terminal first"):
        TerminalClient(tmp_path)


@pytest.mark.parametrize("address", ["", "host", "host:0", "host:99999", "a b:1", "::1:7443"])
def test_a_malformed_address_is_refused(provisioned: Path, address: str) -> None:
    with pytest.raises(CredentialsError, match="host:port"):
        TerminalClient(provisioned, address)


def test_waits_double_to_a_bound_and_stop_before_the_deadline() -> None:
    now = [0.0]
    waits: list[float] = []
    bounds: list[float] = []

    def sleep(wait_s: float) -> None:
        waits.append(wait_s)
        now[0] += wait_s

    def uniform(low: float, high: float) -> float:
        assert low == 0
        bounds.append(high)
        return high

    policy = RetryPolicy(
        first_wait_s=1, longest_wait_s=5, sleep=sleep, monotonic=lambda: now[0], uniform=uniform
    )

    def attempt(timeout_s: float) -> None:
        assert timeout_s <= 20 - now[0]
        raise UnreachableError("UNAVAILABLE", "", "no")

    with pytest.raises(UnreachableError):
        retrying(attempt, 20, policy)
    assert bounds == [1, 2, 4, 5, 5, 5]
    assert waits == [1, 2, 4, 5, 5]
    assert now[0] < 20


def test_a_reason_that_was_told_outlives_an_attempt_that_ran_out_of_time() -> None:
    answers = ["", "SEARCH_INCOMPLETE", ""]

    def attempt(timeout_s: float) -> None:
        raise UnreachableError("UNAVAILABLE", answers.pop(0), "no")

    clock = iter(range(100))
    policy = RetryPolicy(
        sleep=lambda s: None, monotonic=lambda: next(clock), uniform=lambda a, b: 0
    )
    with pytest.raises(UnreachableError) as caught:
        retrying(attempt, 6, policy)
    assert answers == []
    assert caught.value.reason == "SEARCH_INCOMPLETE"


def test_other_errors_are_not_tried_again() -> None:
    calls = []

    def attempt(timeout_s: float) -> None:
        calls.append(timeout_s)
        raise RemoteError("NOT_FOUND", "", "no")

    with pytest.raises(RemoteError):
        retrying(attempt, 10)
    assert len(calls) == 1
