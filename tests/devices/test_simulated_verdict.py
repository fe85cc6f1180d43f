from __future__ import annotations

from dataclasses import replace

import pytest

from devices.simulator import Facts, Submission, Verdict, judge
from devices.simulator.verdict import POOR_CAPTURE, Held
from devices.terminal import ApplicationState

ENROLLED, RECOGNISED = ApplicationState.ENROLLED, ApplicationState.RECOGNISED
IN_ADJUDICATION = ApplicationState.IN_ADJUDICATION


def told(
    number: int, person: int, state: ApplicationState = ENROLLED, registrant: str = ""
) -> Submission:
    return Submission(
        key=f"key-{number}",
        terminal_id="t-1",
        person=str(person),
        document=f"doc-{number}",
        kept=True,
        application_id=f"a-{number}",
        state=state,
        registrant_id=registrant or (f"r-{number}" if state is ENROLLED else ""),
        took_s=0.1 * (number + 1),
    )


# Persons 0 to 2; 0 comes again as themselves, 1 under other papers.
SUBMISSIONS = (
    told(0, 0),
    told(1, 1),
    told(2, 2),
    replace(told(3, 0, RECOGNISED, "r-0"), document="doc-0"),
    told(4, 1, IN_ADJUDICATION),
    Submission("key-5", "t-1", "2", "doc-2", True, refused=POOR_CAPTURE),
)
FACTS = Facts(
    applications={
        "a-0": Held(ENROLLED, "r-0"),
        "a-1": Held(ENROLLED, "r-1"),
        "a-2": Held(ENROLLED, "r-2"),
        "a-3": Held(RECOGNISED, "r-0"),
        "a-4": Held(IN_ADJUDICATION, "", "c-4"),
    },
    by_key={f"key-{number}": f"a-{number}" for number in range(5)},
    registrants=frozenset({"r-0", "r-1", "r-2"}),
    newcomers=frozenset({"r-0", "r-1", "r-2"}),
    cases=frozenset({"c-4"}),
)


def without(held: dict[str, Held], name: str) -> dict[str, Held]:
    return {key: one for key, one in held.items() if key != name}


def test_a_register_that_has_everything_passes() -> None:
    verdict = judge(SUBMISSIONS, FACTS)
    assert verdict.problems(max_missed=0.0) == []
    assert (verdict.submissions, verdict.acknowledged) == (6, 5)
    assert (verdict.enrolled, verdict.recognised, verdict.in_adjudication) == (3, 1, 1)
    assert (verdict.second_visits, verdict.findings.duplicates_found) == (2, 2)
    assert verdict.refused == {POOR_CAPTURE: 1}
    assert verdict.took_s == pytest.approx((0.1, 0.2, 0.3, 0.4, 0.5))
    assert verdict.quantile_s(0.5) == pytest.approx(0.3)


LOSSES: dict[str, Facts] = {
    "the application is gone": replace(
        FACTS, applications=without(dict(FACTS.applications), "a-1")
    ),
    "the key leads nowhere": replace(
        FACTS, by_key={key: one for key, one in (FACTS.by_key or {}).items() if key != "key-1"}
    ),
    "the key leads elsewhere": replace(FACTS, by_key={**(FACTS.by_key or {}), "key-1": "a-9"}),
    "the registrant is gone": replace(FACTS, registrants=frozenset({"r-0", "r-2"})),
    "the registrant is another": replace(
        FACTS, applications={**FACTS.applications, "a-1": Held(ENROLLED, "r-2")}
    ),
    "the case is gone": replace(FACTS, cases=frozenset()),
}


@pytest.mark.parametrize("facts", LOSSES.values(), ids=LOSSES)
def test_what_is_gone_is_lost(facts: Facts) -> None:
    verdict = judge(SUBMISSIONS, facts)
    assert len(verdict.lost) == 1
    assert "lost 1" in verdict.problems()


DOUBLES: dict[str, tuple[tuple[Submission, ...], Facts]] = {
    "an application nobody was told of": (
        SUBMISSIONS,
        replace(FACTS, applications={**FACTS.applications, "a-9": Held(RECOGNISED, "r-1")}),
    ),
    "a registrant of no application": (
        SUBMISSIONS,
        replace(
            FACTS,
            registrants=frozenset({"r-0", "r-1", "r-2", "r-9"}),
            newcomers=frozenset({"r-0", "r-1", "r-2", "r-9"}),
        ),
    ),
    "one application for two submissions": (
        (*SUBMISSIONS, replace(told(1, 1), key="key-1")),
        FACTS,
    ),
    "one person twice under their own papers": (
        (*SUBMISSIONS, replace(told(6, 2), document="doc-2")),
        Facts({**FACTS.applications, "a-6": Held(ENROLLED, "r-6")}),
    ),
}


@pytest.mark.parametrize(("submissions", "facts"), DOUBLES.values(), ids=DOUBLES)
def test_what_is_there_twice_is_doubled(submissions: tuple[Submission, ...], facts: Facts) -> None:
    verdict = judge(submissions, facts)
    assert (len(verdict.lost), len(verdict.doubled)) == (0, 1)
    assert "doubled 1" in verdict.problems()


def test_a_loss_explains_the_registrant_it_names_and_no_other() -> None:
    facts = Facts(
        {**FACTS.applications, "a-99": Held(ENROLLED, "r-99")},
        registrants=frozenset({"r-0", "r-1", "r-2", "r-9"}),
        newcomers=frozenset({"r-0", "r-1", "r-2", "r-9", "r-99"}),
    )
    verdict = judge((*SUBMISSIONS, told(99, 3)), facts)
    assert len(verdict.lost) == 1
    assert verdict.doubled == ("registrant r-9 was enrolled by no application",)


def failing(verdict: Verdict, max_missed: float = 1.0) -> str:
    return "; ".join(verdict.problems(max_missed))


def test_what_did_not_arrive_fails_the_run() -> None:
    waits = Submission("key-6", "t-1", "7", "doc-7", True)
    not_kept = Submission("key-7", "t-1", "8", "doc-8", False)
    assert failing(judge((*SUBMISSIONS, waits, not_kept), FACTS)) == "undelivered 2"


def test_a_refusal_that_is_not_part_of_a_day_fails_the_run() -> None:
    refused = Submission("key-6", "t-1", "7", "doc-7", True, refused="DETAILS_INVALID")
    assert failing(judge((*SUBMISSIONS, refused), FACTS)) == "refused with DETAILS_INVALID 1"


def test_an_application_that_is_never_searched_for_fails_the_run() -> None:
    facts = replace(FACTS, applications={**FACTS.applications, "a-4": Held(ApplicationState(1))})
    assert facts.waiting == 1
    assert failing(judge(SUBMISSIONS, facts)) == "waiting for a search 1"


def test_a_stranger_who_is_recognised_fails_the_run() -> None:
    wrong = told(6, 9, RECOGNISED, "r-0")
    facts = Facts({**FACTS.applications, "a-6": Held(RECOGNISED, "r-0")})
    assert failing(judge((*SUBMISSIONS, wrong), facts)) == "wrongly recognised 1"


def test_too_many_missed_duplicates_fail_the_run() -> None:
    missed = (*SUBMISSIONS[:4], told(4, 1, ENROLLED))
    facts = Facts({**FACTS.applications, "a-4": Held(ENROLLED, "r-4")})
    verdict = judge(missed, facts)
    assert (verdict.findings.duplicates_found, verdict.findings.duplicates_missed) == (1, 1)
    assert failing(verdict, 0.5) == ""
    assert "1 of 2 second visits missed" in failing(verdict, 0.4)
