"""What was found of the second visits, held against who the visitors really are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from devices.terminal.types import ApplicationState

State = ApplicationState


@dataclass(frozen=True)
class Judged:
    """One application that the register has, and whose it is.

    Attributes:
        person: who it really is; never sent.
        document: the papers they came with.
    """

    person: str
    document: str
    state: ApplicationState
    registrant_id: str


@dataclass(frozen=True)
class Findings:
    """How well the register told people apart.

    Attributes:
        duplicates_found: later visits of a person that were recognised or went to people.
        duplicates_missed: later visits of a person, under other papers or with a finger nobody
            knew again, that were enrolled as somebody new.
        false_alarms: first visits of a person that went to adjudication or were rejected.
        wrongly_recognised: visits recognised as a registrant who is somebody else.
        doubled_documents: enrolments under papers of the same person that were enrolled before.
            Whatever the fingers say, the register must stop at the document.
    """

    duplicates_found: int = 0
    duplicates_missed: int = 0
    false_alarms: int = 0
    wrongly_recognised: int = 0
    doubled_documents: int = 0


def findings(applications: Sequence[Judged]) -> Findings:
    """Hold the applications against the truth, in any order.

    Visits of one person overlap in time, so "the first" is whichever was enrolled. If none was, one
    of those held back was the first.
    """
    enrolled_as = {
        one.registrant_id: one.person for one in applications if one.state is State.ENROLLED
    }
    people: dict[str, Counter[ApplicationState]] = {}
    documents: Counter[tuple[str, str]] = Counter()
    wrongly = 0
    for one in applications:
        people.setdefault(one.person, Counter())[one.state] += 1
        documents[one.person, one.document] += one.state is State.ENROLLED
        wrongly += (
            one.state is State.RECOGNISED
            and enrolled_as.get(one.registrant_id, one.person) != one.person
        )
    found = missed = alarms = 0
    for mine in people.values():
        new = mine[State.ENROLLED]
        told_apart = mine[State.RECOGNISED] + mine[State.IN_ADJUDICATION] + mine[State.REJECTED]
        missed += max(0, new - 1)
        found += told_apart if new else max(0, told_apart - 1)
        alarms += 0 if new or mine[State.RECOGNISED] or not told_apart else 1
    return Findings(
        duplicates_found=found,
        duplicates_missed=missed,
        false_alarms=alarms,
        wrongly_recognised=wrongly,
        doubled_documents=sum(max(0, count - 1) for count in documents.values()),
    )
