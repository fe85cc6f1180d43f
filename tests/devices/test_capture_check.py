"""What is said of captures before they are kept, and what a drop makes of it."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from devices.errors import CaptureDoubtfulError, SubmissionInvalidError
from devices.terminal import EntryState, Outbox, Sample
from devices.terminal.check import (
    MIN_AREA_MM2,
    MIN_MINUTIAE,
    SAME_AT,
    TWICE_AT,
    Capture,
    Finger,
    Look,
    findings,
    require_undoubted,
)
from devices.terminal.feedback import DOUBTFUL, LANGUAGES, Finding, Problem, advice, finger_name
from devices.terminal.submission import missing_finger
from identity.capture_check import MatcherExaminer
from matcher.matcher import Matcher
from tests.devices.loopback import Register
from tests.devices.terminal_kit import PROMPT, drop, logged_in, record_of, told
from tests.devices.test_extract import file_of, ridges
from tests.identity.kit import records

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "leader" / "upek"


class Ruler:
    """Two samples are as alike as it is told; a record's first bytes say what it looks like."""

    def __init__(self, similarity: float = 0.0, look: Look | None = None) -> None:
        self.alike = similarity
        self.looks = look

    def look(self, sample: Sample) -> Look:
        return self.looks or Look(sample.position, 40, 120.0, usable=True)

    def similarity(self, one: Sample, other: Sample) -> float:
        return self.alike


def capture(position: int, again: bool = False, problem: Problem | None = None) -> Capture:
    finger = Finger(Sample(b"FMR", position), 90, problem)
    return Capture(finger, finger if again else None)


def problems(found: list[Finding]) -> list[tuple[int, Problem, int]]:
    return [(one.position, one.problem, one.other) for one in found]


# -- the rules --


@pytest.mark.parametrize(
    ("similarity", "differ"), [(SAME_AT, False), (SAME_AT - 0.01, True), (-np.inf, True)]
)
def test_two_captures_of_a_finger_must_match(similarity: float, differ: bool) -> None:
    found = findings([capture(2, again=True)], Ruler(similarity))
    assert problems(found) == ([(2, Problem.CAPTURES_DIFFER, 0)] if differ else [])


@pytest.mark.parametrize(("similarity", "twice"), [(TWICE_AT, True), (TWICE_AT - 0.01, False)])
def test_two_positions_must_not(similarity: float, twice: bool) -> None:
    found = findings([capture(2), capture(7)], Ruler(similarity))
    assert problems(found) == ([(7, Problem.SAME_FINGER, 2)] if twice else [])


@pytest.mark.parametrize(
    ("look", "problem"),
    [
        (Look(2, 3, 0.0, usable=False), Problem.UNUSABLE),
        (Look(2, MIN_MINUTIAE - 1, 99.0, usable=True), Problem.FEW_MINUTIAE),
        (Look(2, MIN_MINUTIAE, MIN_AREA_MM2 - 1, usable=True), Problem.SMALL_AREA),
        (Look(2, MIN_MINUTIAE, MIN_AREA_MM2, usable=True), None),
    ],
)
def test_what_a_template_shows_of_itself(look: Look, problem: Problem | None) -> None:
    found = findings([capture(2)], Ruler(look=look))
    assert problems(found) == ([] if problem is None else [(2, problem, 0)])


def test_an_image_that_says_what_is_wrong_is_not_told_off_twice() -> None:
    weak = Ruler(look=Look(2, 7, 10.0, usable=True))
    found = findings([capture(2, problem=Problem.TOO_DARK)], weak)
    assert problems(found) == [(2, Problem.TOO_DARK, 0)]


def test_without_an_examiner_images_are_still_judged() -> None:
    found = findings([capture(2, again=True, problem=Problem.TOO_FAINT), capture(2)])
    assert problems(found) == [(2, Problem.TOO_FAINT, 0)]


def test_only_what_is_doubtful_has_to_be_insisted_on() -> None:
    require_undoubted([Finding(2, problem) for problem in set(Problem) - DOUBTFUL])
    for problem in DOUBTFUL:
        with pytest.raises(CaptureDoubtfulError, match="right index finger"):
            require_undoubted([Finding(2, problem, 7)])


# -- the words --


def test_every_problem_has_words_in_every_language() -> None:
    seen = set()
    for language in LANGUAGES:
        for problem in Problem:
            text = Finding(3, problem, 8).text(language)
            assert text.startswith(finger_name(3, language))
            assert "{" not in text
            seen.add(text)
        names = [finger_name(position, language) for position in range(11)]
        assert len(set(names)) == 11
    assert len(seen) == len(LANGUAGES) * len(Problem)
    assert Finding(7, Problem.SAME_FINGER, 2).text("zh") == (
        "左手食指：与右手食指是同一枚手指。请按提示的指位逐一采集"
    )
    assert advice(Problem.TOO_DARK) == "the image is dark: press less, or dry the finger"


# -- with the register's own comparison --


@pytest.fixture(scope="module")
def examiner() -> MatcherExaminer:
    return MatcherExaminer(Matcher.open(None))


def test_the_matcher_tells_impressions_of_one_finger_from_two_fingers(
    examiner: MatcherExaminer,
) -> None:
    for number in range(4):
        right, left = records(number)
        right_again, _ = records(number, 1)
        good = Capture(Finger(Sample(right)), Finger(Sample(right_again)))
        mixed = Capture(Finger(Sample(left)), Finger(Sample(right_again)))
        assert findings([good, Capture(Finger(Sample(left)))], examiner) == []
        assert [one.problem for one in findings([mixed], examiner)] == [Problem.CAPTURES_DIFFER]
        position = examiner.look(Sample(left)).position
        moved = right_again[:24] + bytes([position]) + right_again[25:]
        for other, problem in ((moved, Problem.SAME_FINGER), (right_again, Problem.NAMED_TWICE)):
            twice = [Capture(Finger(Sample(right))), Capture(Finger(Sample(other)))]
            assert [one.problem for one in findings(twice, examiner)] == [problem]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared templates are not here")
def test_real_fingers_are_seldom_told_off(examiner: MatcherExaminer) -> None:
    files = sorted(SHARED.rglob("*.iso"))
    by_finger: dict[str, list[Finger]] = {}
    for file in files:
        by_finger.setdefault(file.stem.rsplit("_", 1)[0], []).append(
            Finger(Sample(file.read_bytes()))
        )
    fingers = list(by_finger.values())
    told_off = sum(bool(findings([Capture(one[0], one[1])], examiner)) for one in fingers)
    confused = sum(
        bool(findings([Capture(one[0], other[0])], examiner)) for one, other in pairwise(fingers)
    )
    assert len(fingers) >= 16
    assert told_off <= len(fingers) // 10
    assert confused == len(fingers) - 1


def test_what_is_no_record_is_said_at_once(examiner: MatcherExaminer) -> None:
    with pytest.raises(SubmissionInvalidError, match="cannot be read"):
        findings([Capture(Finger(Sample(b"FMR")))], examiner)
    few = Finger(Sample(_record_of_few()))
    assert [one.problem for one in findings([Capture(few)], examiner)] == [Problem.UNUSABLE]


def _record_of_few() -> bytes:
    record = records(1)[0]
    minutiae = 4
    head, view = bytearray(record[:24]), bytearray(record[24 : 28 + 6 * minutiae])
    view[3] = minutiae
    whole = head + view + b"\0\0"
    whole[8:12] = len(whole).to_bytes(4, "big")
    return bytes(whole)


# -- in the spool --


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    (tmp_path / "spool").mkdir()
    return tmp_path / "spool"


def test_an_image_in_a_drop_becomes_a_template_with_its_quality(
    home: Path, spool: Path, running: Register, examiner: MatcherExaminer
) -> None:
    (spool / "finger.png").write_bytes(file_of(ridges()[0]))
    (spool / "face.jpg").write_bytes(b"a face of many bytes " * 9_000)
    name = drop(
        spool,
        1,
        samples=[{"file": "finger.png", "position": 2}],
        portrait="face.jpg",
        missing_fingers=[{"position": 7, "reason": "amputated"}],
    )
    (spool / "visit-1-right-index.iso").unlink()
    with Outbox(home, spool, policy=PROMPT, examiner=examiner) as outbox:
        outbox.take()
        state = told(spool, name)
        assert state["state"] == "queued"
        [finger] = state["fingers"]
        assert finger["position"] == 2
        assert finger["quality"] > 20
        outbox.send()
        outbox.take()
    assert told(spool, name)["state"] == "sent"
    assert told(spool, name)["fingers"] == [finger]
    request = running.enrolments.requests[-1]
    [sample] = request.samples
    assert sample.data.startswith(b"FMR")
    assert sample.position == 2
    assert [(one.position, one.reason) for one in request.missing_fingers] == [(7, 1)]
    assert running.enrolments.portraits["doc-1"].startswith(b"a face")
    assert [one.name for one in spool.iterdir()] == [f"{name}.state"]


def test_a_doubtful_drop_is_told_in_both_languages_until_it_is_right_or_insisted_on(
    home: Path, spool: Path, examiner: MatcherExaminer
) -> None:
    right, left = records(1)
    again, _ = records(1, 1)
    fingers = {"right.iso": right, "again.iso": again, "left.iso": left}

    def put(**changes: object) -> str:
        for file, record in fingers.items():
            (spool / file).write_bytes(record)
        samples = [{"file": "right.iso", "again": "left.iso"}]
        name = drop(spool, 1, **{"samples": samples, **changes})
        (spool / "visit-1-right-index.iso").unlink()
        return name

    with Outbox(home, spool, policy=PROMPT, examiner=examiner) as outbox:
        name = put()
        outbox.take()
        state = told(spool, name)
        assert (state["state"], state["reason"]) == ("not taken", "CAPTURE_DOUBTFUL")
        [finding] = state["findings"]
        assert (finding["problem"], finding["doubtful"]) == ("captures-differ", True)
        assert "do not match" in finding["en"]
        assert "不一致" in finding["zh"]
        assert outbox.queue.entries() == []
        put(samples=[{"file": "right.iso", "again": "again.iso"}])
        outbox.take()
        assert (told(spool, name)["state"], told(spool, name)["findings"]) == ("queued", [])
        (spool / f"{name}.state").unlink()
        put(accept_findings=True)
        outbox.take()
        assert told(spool, name)["state"] == "queued"
        assert len(outbox.queue.entries()) == 2


def test_a_drop_that_has_to_wait_is_extracted_once(
    home: Path, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []

    def counting(content: bytes, *arguments: object) -> Finger:
        looked.append("")
        return Finger(Sample(b"FMR" + content))

    monkeypatch.setattr("devices.terminal.spool.finger_from", counting)
    drop(spool, 1)
    with Outbox(home, spool, policy=PROMPT) as outbox:
        (home / "session.json").unlink()  # nobody is logged in
        for _ in range(3):
            outbox.take()
        assert told(spool, "visit-1")["reason"] == "NOT_LOGGED_IN"
        logged_in(home)
        outbox.take()
        assert told(spool, "visit-1")["state"] == "queued"
    assert len(looked) == 1


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"missing_fingers": [{"position": 0, "reason": "worn"}]}, "1 to 10 and a reason"),
        ({"missing_fingers": [{"position": 3, "reason": "lost"}]}, "amputated, bandaged"),
        ({"missing_fingers": {"3": "worn"}}, "must be a list"),
        ({"portrait": "../face.jpg"}, "beside the JSON"),
        ({"portrait": "nobody.jpg"}, "no file 'nobody.jpg'"),
        ({"samples": [{"file": "visit-1-right-index.iso", "again": "x/y"}]}, "beside the JSON"),
        ({"samples": [{"file": "visit-1-right-index.iso", "resolution_ppi": 300}]}, "500 or 1000"),
        ({"samples": [{"file": "visit-1-right-index.iso", "extract": "here"}]}, "terminal or"),
        ({"accept_findings": 1}, "true or false"),
    ],
)
def test_what_is_wrong_with_a_drop_is_named(
    home: Path, spool: Path, changes: dict[str, object], complaint: str
) -> None:
    name = drop(spool, 1, **changes)
    with Outbox(home, spool, policy=PROMPT) as outbox:
        outbox.take()
        assert complaint in told(spool, name)["message"]
        assert outbox.queue.entries() == []


def test_an_image_nobody_can_read_is_named_and_the_drop_stays(home: Path, spool: Path) -> None:
    (spool / "visit-1.wsq").write_bytes(b"\xff\xa0\xff\xa8" + bytes(100))
    (spool / "visit-2.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    drop(spool, 1, samples=[{"file": "visit-1.wsq"}])
    drop(spool, 2, samples=[{"file": "visit-2.jpg"}])
    with Outbox(home, spool, policy=PROMPT) as outbox:
        outbox.take()
    assert told(spool, "visit-1")["reason"] == "IMAGE_INVALID"
    assert "WSQ" in told(spool, "visit-1")["message"]
    assert told(spool, "visit-2")["reason"] == "IMAGE_INVALID"
    assert (spool / "visit-1.json").exists()


def test_fewer_fingers_than_asked_need_reasons_already_here(home: Path, spool: Path) -> None:
    drop(spool, 1)
    drop(spool, 2, missing_fingers=[{"position": 7, "reason": "bandaged"}])
    gone = [{"position": number, "reason": "worn"} for number in range(1, 11)]
    drop(spool, 3, samples=[], missing_fingers=gone)
    with Outbox(home, spool, policy=PROMPT, fingers_asked=2) as outbox:
        outbox.take()
        states = [told(spool, f"visit-{number}") for number in (1, 2, 3)]
        assert [one["state"] for one in states] == ["not taken", "queued", "queued"]
        assert states[0]["reason"] == "FINGERS_UNEXPLAINED"
        assert {one.state for one in outbox.queue.entries()} == {EntryState.QUEUED}


def test_an_image_for_the_register_goes_as_it_is(
    home: Path, spool: Path, running: Register
) -> None:
    (spool / "finger.png").write_bytes(b"\x89PNG a picture")
    drop(
        spool,
        1,
        samples=[
            {"file": "visit-1-right-index.iso", "position": 2},
            {"file": "finger.png", "position": 7, "resolution_ppi": 500, "extract": "register"},
        ],
    )
    with Outbox(home, spool, policy=PROMPT) as outbox:
        outbox.take()
        [entry] = outbox.queue.entries()
        assert outbox.queue.pictures(entry.key) == [b"\x89PNG a picture"]
        outbox.send()
    [image] = running.enrolments.requests[-1].images
    assert (image.position, image.resolution_ppi) == (7, 500)
    assert running.enrolments.requests[-1].samples[0].data == record_of(1)


def test_a_missing_finger_from_the_command_line() -> None:
    assert missing_finger("7=bandaged").position == 7
    for wrong in ("7", "=worn", "x=worn", "11=worn", "7=", "7=Worn"):
        with pytest.raises(SubmissionInvalidError):
            missing_finger(wrong)


def test_the_state_file_is_json_that_any_software_reads(home: Path, spool: Path) -> None:
    name = drop(spool, 1)
    (spool / f"{name}.state").write_bytes(b"\xffnot ours")
    with Outbox(home, spool, policy=PROMPT) as outbox:
        outbox.take()
    assert json.loads((spool / f"{name}.state").read_text(encoding="utf-8"))["state"] == "queued"
