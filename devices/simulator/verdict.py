"""What the terminals were told, held against what the register holds.

Nothing here counts what the simulator believes it did: every submission that a terminal confirmed
at its counter must be found again among the register's facts, and nothing else may be there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from devices.simulator.truth import Findings, Judged, findings
from devices.terminal.types import ApplicationState

State = ApplicationState
POOR_CAPTURE = "FAILURE_TO_ENROL"
"""The refusal that is part of a day: the capture was too poor and was repeated."""


@dataclass(frozen=True)
class Submission:
    """One application as its terminal knows it at the end.

    Attributes:
        key: the idempotency key.
        person: who it really is.
        document: the papers they came with.
        kept: the terminal confirmed that it is safe on its disk.
        refused: the register's reason; empty unless it was refused.
        application_id: as the register acknowledged it; empty when it never did.
        state, registrant_id: as first acknowledged.
        took_s: from the terminal's disk to the acknowledgement, by the terminal's clock, seconds.
    """

    key: str
    terminal_id: str
    person: str
    document: str
    kept: bool
    refused: str = ""
    application_id: str = ""
    state: ApplicationState = State.UNSPECIFIED
    registrant_id: str = ""
    took_s: float = 0.0


@dataclass(frozen=True)
class Held:
    """An application as the register has it; ids are empty where there are none."""

    state: ApplicationState
    registrant_id: str = ""
    case_id: str = ""


@dataclass(frozen=True)
class Facts:
    """What the register holds of the simulated terminals, and of nobody else.

    Attributes:
        applications: by id, every one that these terminals ever had accepted.
        by_key: which application an idempotency key led to; ``None`` where this cannot be seen.
        registrants: who of those the applications name exists, with fingers; ``None``: not seen.
        newcomers: registrants who were enrolled at these stations; ``None``: not seen.
        cases: those that exist; ``None``: not seen.
    """

    applications: Mapping[str, Held]
    by_key: Mapping[str, str] | None = None
    registrants: frozenset[str] | None = None
    newcomers: frozenset[str] | None = None
    cases: frozenset[str] | None = None

    @property
    def waiting(self) -> int:
        """Applications that were accepted and not searched for yet."""
        return sum(one.state is State.ACCEPTED for one in self.applications.values())


@dataclass(frozen=True)
class Verdict:
    """What came of a run.

    Attributes:
        submissions: handed in at a counter.
        acknowledged: by the register.
        lost: what was acknowledged, by a terminal's counter or the register, and is gone or says
            something else; one line each.
        doubled: what is there twice; one line each.
        undelivered: still on a terminal when the run ended.
        refused: by reason; :data:`POOR_CAPTURE` is followed by another capture.
        waiting: accepted, but not searched for yet.
        enrolled, recognised, in_adjudication, rejected: applications by state.
        second_visits: visits of people who had been there before.
        took_s: each acknowledged submission's way to the register, ascending, seconds.
    """

    submissions: int
    acknowledged: int
    lost: tuple[str, ...]
    doubled: tuple[str, ...]
    undelivered: int
    refused: Mapping[str, int]
    waiting: int
    enrolled: int
    recognised: int
    in_adjudication: int
    rejected: int
    second_visits: int
    findings: Findings
    took_s: tuple[float, ...] = field(repr=False)

    def quantile_s(self, quantile: float) -> float:
        """The time to acknowledge that a fraction did not exceed; NaN without any."""
        if not self.took_s:
            return float("nan")
        return self.took_s[min(len(self.took_s) - 1, int(quantile * len(self.took_s)))]

    def problems(self, max_missed: float = 1.0) -> list[str]:
        """Why the run failed; empty when it did not.

        Args:
            max_missed: the share of second visits that may go unnoticed, 0 to 1.
        """
        found = [
            ("lost", len(self.lost)),
            ("doubled", len(self.doubled)),
            ("undelivered", self.undelivered),
            ("waiting for a search", self.waiting),
            ("wrongly recognised", self.findings.wrongly_recognised),
        ]
        found += [
            (f"refused with {reason}", count)
            for reason, count in sorted(self.refused.items())
            if reason != POOR_CAPTURE
        ]
        problems = [f"{what} {count}" for what, count in found if count]
        missed = self.findings.duplicates_missed
        if missed > max_missed * self.second_visits:
            problems.append(
                f"{missed} of {self.second_visits} second visits missed, more than {max_missed:.0%}"
            )
        return problems


def judge(submissions: Sequence[Submission], facts: Facts) -> Verdict:
    """Hold every submission against the register."""
    lost: list[str] = []
    doubled: list[str] = []
    accounted: Counter[str] = Counter()
    judged: list[Judged] = []
    undelivered = 0
    for one in submissions:
        if one.refused:
            continue
        if not one.kept or not one.application_id:
            undelivered += 1
            continue
        accounted[one.application_id] += 1
        gone = _gone(one, facts)
        if gone:
            lost.append(f"submission {one.key}, application {one.application_id}: {gone}")
            continue
        if accounted[one.application_id] > 1:
            continue  # told below, and judged once
        held = facts.applications[one.application_id]
        judged.append(Judged(one.person, one.document, held.state, held.registrant_id))
    doubled += [
        f"application {application_id} answers {count} submissions"
        for application_id, count in sorted(accounted.items())
        if count > 1
    ]
    doubled += [
        f"application {application_id} belongs to no submission"
        for application_id in sorted(facts.applications.keys() - accounted.keys())
    ]
    enrolled = {one.registrant_id for one in judged if one.state is State.ENROLLED}
    told = {word.strip(",:") for line in lost for word in line.split()}
    doubled += [
        f"registrant {registrant_id} was enrolled by no application"
        for registrant_id in sorted((facts.newcomers or frozenset()) - enrolled - told)
    ]
    found = findings(judged)
    doubled += ["enrolled again under their own papers"] * found.doubled_documents
    states = Counter(one.state for one in judged)
    return Verdict(
        submissions=len(submissions),
        acknowledged=sum(accounted.values()),
        lost=tuple(lost),
        doubled=tuple(doubled),
        undelivered=undelivered,
        refused=dict(Counter(one.refused for one in submissions if one.refused)),
        waiting=states[State.ACCEPTED] + states[State.UNSPECIFIED],
        enrolled=states[State.ENROLLED],
        recognised=states[State.RECOGNISED],
        in_adjudication=states[State.IN_ADJUDICATION],
        rejected=states[State.REJECTED],
        second_visits=len(judged) - len({one.person for one in judged}),
        findings=found,
        took_s=tuple(sorted(one.took_s for one in submissions if one.application_id)),
    )


def _gone(one: Submission, facts: Facts) -> str:
    """How what the register acknowledged is no longer so; empty when it is."""
    held = facts.applications.get(one.application_id)
    if held is None:
        return "the register does not have it"
    if facts.by_key is not None and facts.by_key.get(one.key) != one.application_id:
        return "the key no longer leads to it: sent again, it would be made again"
    if one.registrant_id and held.registrant_id != one.registrant_id:
        return f"acknowledged as {one.registrant_id}, held as {held.registrant_id or 'nobody'}"
    settled = held.state in (State.ENROLLED, State.RECOGNISED)
    if settled and facts.registrants is not None and held.registrant_id not in facts.registrants:
        return f"registrant {held.registrant_id} is gone, or has no fingers"
    waits = held.state is State.IN_ADJUDICATION
    if waits and facts.cases is not None and held.case_id not in facts.cases:
        return f"case {held.case_id} is gone"
    return ""
