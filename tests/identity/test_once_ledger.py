from __future__ import annotations

import hashlib
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity.errors import IdempotencyConflictError, InvalidRequestError
from identity.store.once import check_key
from tests.identity.kit import START, World, once


def test_a_change_is_unknown_until_it_is_recorded(world: World) -> None:
    change = once(key="k" * 16, content="a")
    with world.database.write() as tx:
        assert tx.once.result_of(change) is None
        tx.once.record(change, "A-1", START)
        assert tx.once.result_of(change) == "A-1"
    with world.database.read() as tx:
        assert tx.once.result_of(change) == "A-1"


def test_the_same_key_for_another_request_is_a_conflict(world: World) -> None:
    with world.database.write() as tx:
        tx.once.record(once(key="k" * 16, content="a"), "A-1", START)
    with world.database.read() as tx, pytest.raises(IdempotencyConflictError) as caught:
        tx.once.result_of(once(key="k" * 16, content="b"))
    assert caught.value.reason == "IDEMPOTENCY_CONFLICT"


@pytest.mark.parametrize(
    "other",
    [
        once("terminal:hall-2", key="k" * 16, content="a"),
        once(method="RegisterService.ChangeResidence", key="k" * 16, content="a"),
        once(key="K" * 16, content="a"),
    ],
)
def test_a_key_belongs_to_its_caller_and_method(world: World, other: object) -> None:
    with world.database.write() as tx:
        tx.once.record(once(key="k" * 16, content="a"), "A-1", START)
        assert tx.once.result_of(other) is None  # type: ignore[arg-type]


def test_the_claim_goes_with_the_change_or_not_at_all(world: World) -> None:
    change = once(key="k" * 16)

    class PowerCutError(Exception):
        pass

    with pytest.raises(PowerCutError), world.database.write() as tx:  # noqa: PT012
        tx.audit.append(START, "test", "change")
        tx.once.record(change, "A-1", START)
        raise PowerCutError
    with world.database.read() as tx:
        assert tx.once.result_of(change) is None
        assert tx.audit.entries(0, 10) == []


def test_of_two_writers_with_one_key_only_one_makes_the_change(world: World) -> None:
    for number in range(20):
        change = once(key=f"{number:016}")
        barrier = threading.Barrier(4)
        made: list[int] = []

        def write(me: int, change=change, barrier=barrier, made=made) -> None:  # type: ignore[no-untyped-def]
            barrier.wait()
            with world.database.write() as tx:
                if tx.once.result_of(change) is None:
                    tx.once.record(change, str(me), START)
                    made.append(me)

        threads = [threading.Thread(target=write, args=(me,)) for me in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made) == 1
        with world.database.read() as tx:
            assert tx.once.result_of(change) == str(made[0])


def test_what_a_request_said_cannot_be_guessed_from_the_ledger(world: World) -> None:
    # An address is easy to guess, and the rest of its request lies beside it in clear. So the
    # database must not hold a hash that anybody can compute.
    change = once(key="k" * 16, content="guessable")
    with world.database.write() as tx:
        tx.once.record(change, "A-1", START)
        stored = tx.connection.exec_driver_sql("SELECT request_hash, result FROM idempotency")
        ((request_hash, result),) = stored.all()
    assert request_hash != hashlib.sha256(b"guessable").digest()
    assert b"A-1" not in result


@pytest.mark.parametrize("key", ["", "k" * 15, "k" * 65, "k" * 15 + "é", "k" * 15 + "\n"])
def test_a_malformed_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_key(key)
    assert caught.value.reason == "IDEMPOTENCY_KEY_INVALID"


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=16, max_size=64))
def test_a_well_formed_key_is_accepted(key: str) -> None:
    check_key(key)
