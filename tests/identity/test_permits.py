"""Permits by the register, and what a department reads in the published bundle afterwards."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from devices.types import Principal, Role
from identity.errors import (
    IdempotencyConflictError,
    IdentityError,
    InvalidRequestError,
    NotFoundError,
    StateError,
)
from identity.permits import ShownPermit
from identity.types import Once, PermitState, Purpose
from issuance import verifier
from issuance.types import Reason
from tests.identity.kit import ANNA, BO, START, TERMINAL, World, connect_world, once, particulars

VALID, SUSPENDED, REVOKED = PermitState.VALID, PermitState.SUSPENDED, PermitState.REVOKED


@pytest.fixture
def holder(world: World) -> str:
    return world.registrant(1)


def issuing(key: str = "", content: str = "") -> Once:
    return once(ANNA, "PermitService.IssuePermit", key, content)


def change(
    world: World, shown: ShownPermit, state: PermitState, key: str = "", who: str = ANNA
) -> ShownPermit:
    return world.desk.change_status(
        shown.permit.permit_number,
        state,
        "reported lost",
        once(who, "PermitService.ChangePermitStatus", key, state.name),
    )


def show(world: World, shown: ShownPermit) -> ShownPermit:
    return world.desk.show(shown.permit.permit_number, ANNA, "PermitService.GetPermit")


def verdict(world: World, shown: ShownPermit) -> Reason:
    """What a department that has just synchronised is told."""
    return verifier.verify(shown.permit.qr_text, world.trust(), world.clock.now()).reason


def refused(world: World, error: type[IdentityError], reason: str, step: Any) -> None:
    before = world.dump()
    with pytest.raises(error) as caught:
        step()
    assert caught.value.reason == reason
    assert world.dump() == before


# -- issue ----


def test_a_permit_verifies_offline_and_says_whose_it_is(world: World, holder: str) -> None:
    shown = world.desk.issue(holder, issuing())
    told = verifier.verify(shown.permit.qr_text, world.trust(), world.clock.now())
    assert told.reason is Reason.VALID
    assert told.shown["full_name"] == particulars(1).details.full_name
    assert show(world, shown) == shown


def test_a_second_permit_is_refused_while_one_stands(world: World, holder: str) -> None:
    shown = world.desk.issue(holder, issuing())
    refused(world, StateError, "PERMIT_STILL_VALID", lambda: world.desk.issue(holder, issuing()))
    change(world, shown, SUSPENDED)
    refused(world, StateError, "PERMIT_STILL_VALID", lambda: world.desk.issue(holder, issuing()))


def test_after_expiry_or_revocation_a_new_one_is_issued(world: World, holder: str) -> None:
    first = world.desk.issue(holder, issuing())
    world.clock.advance(timedelta(days=366))
    world.port.refresh()
    second = world.desk.issue(holder, issuing())
    change(world, second, REVOKED)
    third = world.desk.issue(holder, issuing())
    assert len({one.permit.permit_number for one in (first, second, third)}) == 3
    assert verdict(world, first) is Reason.EXPIRED
    assert verdict(world, second) is Reason.REVOKED
    assert verdict(world, third) is Reason.VALID


def test_a_permit_expires_to_the_second(world: World, holder: str) -> None:
    shown = world.desk.issue(holder, issuing())
    world.clock.time = shown.permit.expires_at - timedelta(seconds=1)
    assert show(world, shown).state is VALID
    world.clock.time = shown.permit.expires_at
    assert show(world, shown).state is PermitState.EXPIRED


def test_a_retry_gets_the_same_permit(world: World, holder: str) -> None:
    key = "annas-issuing-key"
    assert world.desk.issue(holder, issuing(key)) == world.desk.issue(holder, issuing(key))


def test_a_key_used_for_another_holder_is_a_conflict(world: World, holder: str) -> None:
    world.desk.issue(holder, issuing("annas-issuing-key", "1"))
    other = world.registrant(2)
    refused(
        world,
        IdempotencyConflictError,
        "IDEMPOTENCY_CONFLICT",
        lambda: world.desk.issue(other, issuing("annas-issuing-key", "2")),
    )


def test_two_counters_at_once_issue_one_permit(world: World, holder: str) -> None:
    barrier = threading.Barrier(4)

    def attempt(_: int) -> str:
        barrier.wait()
        try:
            return world.desk.issue(holder, issuing()).permit.permit_number
        except StateError as error:
            return error.reason

    with ThreadPoolExecutor(4) as pool:
        answers = sorted(pool.map(attempt, range(4)))
    assert answers.count("PERMIT_STILL_VALID") == 3
    with world.database.read() as tx:
        assert len(world.desk.of_registrant(tx, holder)) == 1


def test_nobody_unknown_or_departed_gets_a_permit(world: World, holder: str) -> None:
    refused(world, NotFoundError, "REGISTRANT_UNKNOWN", lambda: world.desk.issue("R-0", issuing()))
    world.register.record_departure(holder, START.date(), once(ANNA))
    refused(world, StateError, "NOT_RESIDENT", lambda: world.desk.issue(holder, issuing()))


def test_who_leaves_while_their_permit_is_signed_does_not_get_it(
    world: World, holder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign = world.port.issue

    def leave_meanwhile(*arguments: Any) -> Any:
        signed = sign(*arguments)
        world.register.record_departure(holder, START.date(), once(ANNA))
        return signed

    monkeypatch.setattr(world.port, "issue", leave_meanwhile)
    with pytest.raises(StateError) as caught:
        world.desk.issue(holder, issuing())
    assert caught.value.reason == "NOT_RESIDENT"
    with world.database.read() as tx:
        assert world.desk.of_registrant(tx, holder) == []


# -- status ----


def test_suspension_is_published_and_can_be_ended(world: World, holder: str) -> None:
    shown = world.desk.issue(holder, issuing())
    assert change(world, shown, SUSPENDED).state is SUSPENDED
    assert verdict(world, shown) is Reason.SUSPENDED
    assert change(world, shown, VALID).state is VALID
    assert verdict(world, shown) is Reason.VALID


@pytest.mark.parametrize("before", [VALID, SUSPENDED])
def test_revocation_is_published_and_final(world: World, holder: str, before: PermitState) -> None:
    shown = world.desk.issue(holder, issuing())
    change(world, shown, before)
    assert change(world, shown, REVOKED).state is REVOKED
    assert verdict(world, shown) is Reason.REVOKED
    for wanted in (VALID, SUSPENDED):
        refused(
            world,
            StateError,
            "PERMIT_REVOKED",
            lambda wanted=wanted: change(world, shown, wanted),
        )
    assert verdict(world, shown) is Reason.REVOKED
    assert change(world, shown, REVOKED).state is REVOKED


def test_one_holders_revocation_leaves_the_others_alone(world: World) -> None:
    permits = [world.enrol(index, permit=True).permit for index in range(5)]
    shown = [permit for permit in permits if permit is not None]
    change(world, shown[2], REVOKED)
    told = [verdict(world, one) for one in shown]
    assert told == [Reason.VALID, Reason.VALID, Reason.REVOKED, Reason.VALID, Reason.VALID]


@pytest.mark.parametrize("reason", ["", " ", "x" * 201])
def test_a_change_of_status_needs_a_reason(world: World, holder: str, reason: str) -> None:
    number = world.desk.issue(holder, issuing()).permit.permit_number
    refused(
        world,
        InvalidRequestError,
        "REASON_MISSING",
        lambda: world.desk.change_status(number, REVOKED, reason, once(ANNA)),
    )


def test_why_a_permit_was_changed_stays_in_the_register_and_is_not_published(
    world: World, holder: str
) -> None:
    shown = world.desk.issue(holder, issuing())
    reason = "持证人报失"
    world.desk.change_status(shown.permit.permit_number, SUSPENDED, reason, once(ANNA))
    world.desk.change_status(shown.permit.permit_number, REVOKED, "stolen after all", once(BO))
    with world.database.read() as tx:
        kept = tx.permits.changes(shown.permit)
    assert [(one.state, one.reason, one.changed_by, one.at) for one in kept] == [
        (SUSPENDED, reason, ANNA, START),
        (REVOKED, "stolen after all", BO, START),
    ]
    assert reason.encode() not in world.issuer.trust().bundle
    assert reason.encode().hex().upper() not in "".join(world.dump()).upper()


def test_nobody_can_make_a_permit_expire(world: World, holder: str) -> None:
    shown = world.desk.issue(holder, issuing())
    refused(
        world,
        InvalidRequestError,
        "STATE_INVALID",
        lambda: change(world, shown, PermitState.EXPIRED),
    )


def test_an_unknown_permit_is_not_found(world: World) -> None:
    for step in (
        lambda: world.desk.show("T-0", ANNA, "PermitService.GetPermit"),
        lambda: world.desk.card("T-0", False, ANNA, "PermitService.RenderPermitCard"),
        lambda: world.desk.change_status("T-0", REVOKED, "why", once(ANNA)),
    ):
        refused(world, NotFoundError, "PERMIT_UNKNOWN", step)


def test_a_retried_change_counts_once(world: World, holder: str) -> None:
    shown = world.desk.issue(holder, issuing())
    change(world, shown, SUSPENDED, key="annas-suspending-key")
    change(world, shown, VALID)
    # The late retry of the suspension is answered, and does not suspend again.
    assert change(world, shown, SUSPENDED, key="annas-suspending-key").state is VALID
    assert verdict(world, shown) is Reason.VALID


def test_a_publication_that_failed_is_made_up_for_by_a_retry(
    world: World, holder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = world.desk.issue(holder, issuing())
    key = "annas-revoking-key"
    with monkeypatch.context() as patch:
        patch.setattr(world.issuer, "publish_trust", lambda: (_ for _ in ()).throw(OSError(28, "")))
        with pytest.raises(OSError, match="28"):
            change(world, shown, REVOKED, key=key)
    assert verdict(world, shown) is Reason.VALID
    assert change(world, shown, REVOKED, key=key).state is REVOKED
    assert verdict(world, shown) is Reason.REVOKED


def test_changes_made_at_once_are_published_as_the_register_has_them(
    world: World, holder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = world.desk.issue(holder, issuing())
    publish = world.port.publish

    def slowly_suspend(status_list: int, status_index: int, state: PermitState) -> None:
        time.sleep(0.03 if state is SUSPENDED else 0.0)
        publish(status_list, status_index, state)

    monkeypatch.setattr(world.port, "publish", slowly_suspend)
    for _ in range(6):
        barrier = threading.Barrier(2)

        def flip(wanted: PermitState, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            time.sleep(0.01 if wanted is VALID else 0.0)
            change(world, shown, wanted)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(flip, (SUSPENDED, VALID)))
        expected = {VALID: Reason.VALID, SUSPENDED: Reason.SUSPENDED}[show(world, shown).state]
        assert verdict(world, shown) is expected


def test_a_change_published_late_still_says_what_the_register_says(
    world: World, holder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The suspension commits first and is overtaken by the revocation before it is published."""
    shown = world.desk.issue(holder, issuing())
    publish = world.desk.publish

    def overtaken(numbers: Any) -> None:
        monkeypatch.setattr(world.desk, "publish", publish)
        change(world, shown, REVOKED, who=BO)
        publish(numbers)

    monkeypatch.setattr(world.desk, "publish", overtaken)
    change(world, shown, SUSPENDED)
    assert show(world, shown).state is REVOKED
    assert verdict(world, shown) is Reason.REVOKED


def test_the_published_lists_are_set_right_at_the_next_start(world: World, holder: str) -> None:
    """The process died between the commit and the publication."""
    shown = world.desk.issue(holder, issuing())
    with world.database.write() as tx:
        tx.permits.set_state(shown.permit.permit_number, REVOKED)
    assert verdict(world, shown) is Reason.VALID
    world.desk.reconcile()
    assert verdict(world, shown) is Reason.REVOKED


def test_a_lost_journal_costs_no_status_and_no_number_twice(world: World) -> None:
    permits = [world.enrol(index, permit=True).permit for index in range(3)]
    shown = [permit for permit in permits if permit is not None]
    change(world, shown[0], REVOKED)
    world.issuer.close()
    world.database.close()
    for file in (world.directory / "issuance" / "journal").iterdir():
        file.unlink()
    again = connect_world(world.vault, world.directory, world.clock)
    again.desk.reconcile()
    again.follower.catch_up()
    assert [verdict(again, one) for one in shown] == [Reason.REVOKED, Reason.VALID, Reason.VALID]
    new = again.enrol(9, permit=True).permit
    assert new is not None
    numbers = {one.permit.permit_number for one in (*shown, new)}
    places = {(one.permit.status_list, one.permit.status_index) for one in (*shown, new)}
    assert len(numbers) == len(places) == 4
    again.database.close()
    again.issuer.close()


# -- shown ----


def test_a_card_is_drawn_for_valid_permits_only(world: World, holder: str) -> None:
    shown = world.desk.issue(holder, issuing())
    number = shown.permit.permit_number

    def card(pdf: bool) -> bytes:
        return world.desk.card(number, pdf, ANNA, "PermitService.RenderPermitCard")

    assert card(False).startswith(b"\x89PNG")
    assert card(True).startswith(b"%PDF")
    change(world, shown, SUSPENDED)
    refused(world, StateError, "PERMIT_NOT_VALID", lambda: card(False))
    change(world, shown, VALID)
    world.clock.advance(timedelta(days=366))
    refused(world, StateError, "PERMIT_NOT_VALID", lambda: card(False))


def test_whoever_is_shown_a_permit_is_shown_to_its_holder(world: World, holder: str) -> None:
    shown = world.desk.issue(holder, issuing())
    show(world, shown)
    world.desk.card(shown.permit.permit_number, True, BO, "PermitService.RenderPermitCard")
    seen = [
        (entry.who, entry.action, Purpose(entry.purpose, entry.case_reference))
        for entry in world.register.disclosures(holder, None, 10)
    ]
    purpose = Purpose("permit-service", shown.permit.permit_number)
    assert seen == [
        (BO, "PermitService.RenderPermitCard", purpose),
        (ANNA, "PermitService.GetPermit", purpose),
    ]


def test_an_operator_who_reads_an_application_sees_the_permit_and_is_seen(world: World) -> None:
    answer = world.enrol(2, permit=True)
    application, holder = answer.application, answer.application.registrant_id or ""
    assert world.register.disclosures(holder, None, 10) == []
    world.reception.application(application.application_id, TERMINAL)
    assert world.register.disclosures(holder, None, 10) == []  # the station's own answer
    asked = world.reception.application(
        application.application_id, Principal(Role.OPERATOR, "anna")
    )
    assert asked.permit == answer.permit
    (seen,) = world.register.disclosures(holder, None, 10)
    assert (seen.who, seen.action) == (ANNA, "EnrolmentService.GetApplication")


def test_every_list_is_named_to_the_issuer_even_if_all_its_permits_stand(
    world: World, holder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a lost permit journal is rebuilt from must not forget the lists of old permits."""
    first = world.desk.issue(holder, issuing()).permit
    older = replace(first, permit_number="T99999999999999", status_list=7, status_index=3)
    with world.database.write() as tx:
        tx.permits.add(older)
    monkeypatch.setattr("identity.store.permits.LATEST", 0)
    with world.database.read() as tx:
        assert set(tx.permits.statuses()) == {
            (first.status_list, first.status_index, PermitState.VALID),
            (7, 3, PermitState.VALID),
        }
