"""Biometric questions, asked for a purpose: every answer leaves an entry for everyone in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from identity.config import DecisionPolicy, LookupConfig
from identity.errors import InvalidRequestError, StateError, UnavailableError
from identity.observability.stages import stage
from identity.ports import Clock, Comparer
from identity.register import check_purpose
from identity.store import Database
from identity.types import Purpose, RegistrantState
from matcher.types import CandidateList, Decision, Template, Thresholds

DEFAULT_CANDIDATES, MAX_CANDIDATES = 10, 50
MAX_SAMPLES = 10


class Lookups:
    """Biometric questions, asked for a purpose."""

    def __init__(
        self,
        database: Database,
        comparer: Comparer,
        policy: DecisionPolicy,
        lookup: LookupConfig,
        clock: Clock,
        who: Callable[[], object],
    ) -> None:
        self._database = database
        self._comparer = comparer
        self._policy = policy
        self._lookup = lookup
        self._clock = clock
        self._who = who

    def identify(
        self, probes: Sequence[Template], limit: int, purpose: str, case_reference: str
    ) -> tuple[CandidateList, Thresholds]:
        """Candidates at or above the grey threshold. Logged for everyone in the answer.

        Raises:
            InvalidRequestError: PURPOSE_UNKNOWN, SAMPLES_MISSING, LIMIT_INVALID.
            UnavailableError: SEARCH_INCOMPLETE.
        """
        why = Purpose(purpose, case_reference)
        check_purpose(why, self._lookup)
        check_sample_count(len(probes))
        if not 0 <= limit <= MAX_CANDIDATES:
            raise InvalidRequestError("LIMIT_INVALID", f"limit must be 0 to {MAX_CANDIDATES}")
        with stage("search"):
            found = self._comparer.identify(probes, limit=limit or DEFAULT_CANDIDATES)
        if not found.complete:
            raise UnavailableError(
                "SEARCH_INCOMPLETE", "part of the register cannot be searched now; try again later"
            )
        thresholds = search_thresholds(self._comparer, self._policy, found.searched)
        shown = tuple(c for c in found.candidates if c.similarity >= thresholds.grey)
        self._log([c.subject_id for c in shown], why, "MatchingService.Identify")
        return replace(found, candidates=shown), thresholds

    def verify(
        self, subject_id: str, probes: Sequence[Template], purpose: str, case_reference: str
    ) -> Decision:
        """Raises NotFoundError, StateError (``NO_REFERENCES``: erased), InvalidRequestError."""
        why = Purpose(purpose, case_reference)
        check_purpose(why, self._lookup)
        check_sample_count(len(probes))
        with self._database.read() as tx:
            registrant = tx.people.registrant(subject_id)
        if registrant.state is RegistrantState.ERASED:
            raise StateError("NO_REFERENCES", f"registrant {subject_id} has no references")
        decision = self._comparer.verify(subject_id, probes, fmr=self._policy.fmr_verify)
        self._log([subject_id], why, "MatchingService.Verify")
        return decision

    def _log(self, subjects: list[str], why: Purpose, action: str) -> None:
        now = self._clock.now()
        with self._database.write() as tx:
            for subject in subjects or [""]:
                tx.audit.append(now, str(self._who()), action, subject, why)


def search_thresholds(comparer: Comparer, policy: DecisionPolicy, references: int) -> Thresholds:
    """The thresholds that hold the configured FPIR over a search of that many references."""
    enrolled = max(references, 1)
    return Thresholds(
        grey=comparer.threshold_for_fpir(policy.fpir_grey, enrolled),
        same=comparer.threshold_for_fpir(policy.fpir_same, enrolled),
    )


def check_sample_count(count: int) -> None:
    """Raises InvalidRequestError (``SAMPLES_MISSING``)."""
    if not 1 <= count <= MAX_SAMPLES:
        raise InvalidRequestError(
            "SAMPLES_MISSING", f"1 to {MAX_SAMPLES} fingers are needed, got {count}"
        )
