"""Pictures through lines that break, terminals that die and registers that forget.

The property at the end draws the whole story: what is captured, and when the terminal (with or
without its power), the line and the register die, at any step of any of them.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from devices.authority import Authority, init_authority
from devices.errors import NotLoggedInError, RemoteError, SubmissionInvalidError
from devices.provisioning import Provisioning
from devices.terminal import EntryState, MissingFinger, MissingReason, Outbox, TerminalClient
from devices.terminal import provision as provision_terminal
from devices.terminal.disk import Disk
from devices.terminal.queue import MAX_PICTURE_BYTES, QUEUE_FOLDER, SubmissionQueue
from devices.terminal.session import SESSION_FILE
from devices.terminal.submission import person_from
from devices.terminal.wire import CHUNK_BYTES
from devices.wire import CAPTURE_PROOF_METADATA
from tests.devices.fakes import FakeClock, MemoryTerminalStore
from tests.devices.loopback import Enrolments, Proxy, Register, refuse, register
from tests.devices.terminal_kit import (
    PROMPT,
    Clock,
    Fate,
    Killed,
    logged_in,
    mortal,
    person_json,
    record_of,
)

Code = grpc.StatusCode


@dataclass
class Restless(Enrolments):
    """A register that breaks off calls and chunks, when told.

    Attributes:
        moods: taken one a call of Enrol: ``""`` well, ``before`` and ``after`` its commit the line
            is cut, ``forget`` its uploads are gone, ``busy`` and ``broken`` refuse.
        cuts: numbers of the chunks, over all uploads, before which the line is cut.
    """

    moods: list[str] = field(default_factory=list)
    cuts: set[int] = field(default_factory=set)
    chunks: int = 0
    unvouched: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    cut: Callable[[], None] = lambda: None

    def Enrol(self, request: object, context: grpc.ServicerContext) -> object:  # type: ignore[override]
        mood = self.moods.pop(0) if self.moods else ""
        self.seen[mood] += 1
        told = {name for name, _ in context.invocation_metadata()}
        self.unvouched += CAPTURE_PROOF_METADATA not in told
        if mood == "before":
            self.cut()
            context.abort(Code.UNAVAILABLE, "gone")
        if mood == "forget":
            with self.lock:
                self.uploads.clear()
        if mood == "busy":
            refuse(context, Code.RESOURCE_EXHAUSTED, "BUSY", "too many at once")
        if mood == "broken":
            refuse(context, Code.INTERNAL, "INTERNAL", "an internal error occurred")
        answer = super().Enrol(request, context)  # type: ignore[arg-type]
        if mood == "after":
            self.cut()
            context.abort(Code.UNAVAILABLE, "gone")
        return answer

    def __post_init__(self) -> None:
        self.at_chunk = self._at_chunk

    def forget_everything(self) -> None:
        self.requests.clear()
        for memory in (self.answers, self.by_id, self.people, self.uploads, self.portraits):
            memory.clear()

    def _at_chunk(self, count: int, context: grpc.ServicerContext) -> None:
        number, self.chunks = self.chunks, self.chunks + 1
        if number in self.cuts:
            self.seen["cut in an upload"] += 1
            self.cut()
            context.abort(Code.UNAVAILABLE, "gone")


def picture(number: int, size: int = 5 * CHUNK_BYTES // 2) -> bytes:
    return f"picture {number} ".encode() * (size // 10) + bytes(size % 10)


@pytest.fixture
def enrolments() -> Restless:
    return Restless()


@pytest.fixture
def outbox(home: Path) -> Iterator[Outbox]:
    with Outbox(home, policy=PROMPT) as outbox:
        yield outbox


def submit(outbox: Outbox, number: int, portrait: bytes) -> str:
    person = person_from(person_json(number))
    missing = [MissingFinger(7, MissingReason.BANDAGED)]
    return outbox.submit(
        person,
        [record_of(number)],
        label=f"ticket {number}",
        portrait=portrait,
        missing_fingers=missing,
        # The same submission handed in twice has the same key, as from a drop.
        idempotency_key=outbox.queue.key_for(str(number).encode()),
    ).key


def picture_files(home: Path) -> list[Path]:
    return sorted((home / QUEUE_FOLDER).glob("*.picture"))


# -- what is sent, and what is kept --


def test_a_portrait_is_kept_sealed_then_uploaded_then_forgotten(
    outbox: Outbox, running: Register, home: Path
) -> None:
    face = picture(1)
    key = submit(outbox, 1, face)
    [kept] = picture_files(home)
    assert b"picture 1" not in kept.read_bytes()
    assert outbox.queue.fill().bytes > len(face)
    outbox.send()
    assert outbox.entry(key).state is EntryState.SENT
    assert running.enrolments.portraits == {"doc-1": face}
    request, again = running.enrolments.requests
    assert request == again  # before and after the upload
    [missing] = request.missing_fingers
    assert (int(missing.position), int(missing.reason)) == (7, MissingReason.BANDAGED)
    assert picture_files(home) == []
    assert outbox.queue.fill().bytes == 0


def test_a_small_portrait_travels_in_the_request(outbox: Outbox, running: Register) -> None:
    submit(outbox, 1, picture(1, CHUNK_BYTES))
    outbox.send()
    assert len(running.enrolments.requests) == 1
    assert running.enrolments.portraits == {"doc-1": picture(1, CHUNK_BYTES)}


def test_a_cut_upload_goes_on_where_it_was(outbox: Outbox, running: Register) -> None:
    taken: list[int] = []

    def cut(count: int, context: grpc.ServicerContext) -> None:
        taken.append(count)
        if len(taken) in (2, 4):
            context.abort(Code.UNAVAILABLE, "gone")

    running.enrolments.at_chunk = cut
    key = submit(outbox, 1, picture(1, 4 * CHUNK_BYTES))
    for _ in range(3):
        outbox.send()
    assert outbox.entry(key).state is EntryState.SENT
    # 1 chunk came through, then 1 more, then the last two: none of them twice.
    assert taken == [0, 1, 0, 1, 0, 1, -1]


def test_progress_ends_the_growing_of_pauses(home: Path, running: Register) -> None:
    bounds: list[float] = []
    policy = type(PROMPT)(
        first_wait_s=1,
        longest_wait_s=60,
        uniform=lambda low, high: bounds.append(high) or 0.0,  # type: ignore[func-returns-value]
    )

    def cut(count: int, context: grpc.ServicerContext) -> None:
        if count == 1:
            context.abort(Code.UNAVAILABLE, "gone")

    running.enrolments.at_chunk = cut
    with Outbox(home, policy=policy) as outbox:
        submit(outbox, 1, picture(1, 4 * CHUNK_BYTES))
        for _ in range(3):
            outbox.send()
    # Each attempt got a chunk further; only the first could not know that.
    assert bounds == [1, 1, 1]


def test_after_a_lost_answer_the_picture_does_not_travel_again(
    outbox: Outbox, enrolments: Restless
) -> None:
    enrolments.moods = ["", "after"]
    key = submit(outbox, 1, picture(1))
    outbox.send()
    assert outbox.entry(key).state is EntryState.QUEUED
    travelled = enrolments.chunks
    assert travelled == 4  # three chunks and the answer
    outbox.send()
    assert outbox.entry(key).state is EntryState.SENT
    assert enrolments.chunks == travelled
    assert enrolments.uploads == {}


def test_a_register_that_forgot_an_upload_gets_it_again(outbox: Outbox, running: Register) -> None:
    def forget(number: int, context: grpc.ServicerContext) -> None:
        if number == 1:  # between the upload and the application
            running.enrolments.uploads.clear()

    running.enrolments.hook = forget
    key = submit(outbox, 1, picture(1))
    for _ in range(3):
        outbox.send()
    assert outbox.entry(key).state is EntryState.SENT
    assert running.enrolments.portraits == {"doc-1": picture(1)}


def test_a_register_that_always_forgets_needs_attention_in_the_end(
    home: Path, running: Register
) -> None:
    running.enrolments.hook = lambda number, context: running.enrolments.uploads.clear()
    policy = type(PROMPT)(first_wait_s=0, longest_wait_s=0, tries=3)
    with Outbox(home, policy=policy) as outbox:
        key, other = submit(outbox, 1, picture(1)), submit(outbox, 2, b"")
        for _ in range(3):
            outbox.send()
        assert outbox.entry(key).reason == "UPLOAD_MISSING"
        assert outbox.entry(other).state is EntryState.SENT
        assert len(outbox.queue.pictures(key)) == 1  # still there to be sent


@pytest.mark.parametrize("damage", ["gone", "flipped"])
def test_a_damaged_picture_needs_attention_and_holds_up_nobody(
    outbox: Outbox, home: Path, damage: str
) -> None:
    bad, good = submit(outbox, 1, picture(1)), submit(outbox, 2, picture(2))
    [file] = (home / QUEUE_FOLDER).glob(f"{bad}-00.picture")
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.unlink() if damage == "gone" else file.write_bytes(content)
    outbox.send()
    assert (outbox.entry(bad).state, outbox.entry(bad).reason) == (EntryState.ATTENTION, "DAMAGED")
    assert outbox.entry(good).state is EntryState.SENT


def test_discarding_deletes_the_pictures_too(outbox: Outbox, home: Path) -> None:
    key, other = submit(outbox, 1, picture(1)), submit(outbox, 2, picture(2))
    outbox.queue.mark_attention(key, "INVALID_ARGUMENT", "PORTRAIT_INVALID", "no face")
    outbox.queue.discard(key)
    assert [one.name for one in picture_files(home)] == [f"{other}-00.picture"]


def test_pictures_too_large_or_too_many_are_not_kept(outbox: Outbox, home: Path) -> None:
    for wrong in ([bytes(MAX_PICTURE_BYTES + 1)], [b"x"] * 12):
        with pytest.raises(SubmissionInvalidError, match="picture"):
            outbox.queue.put("k" * 16, "ticket", b"request", wrong)
    assert picture_files(home) == []


def test_a_call_without_queue_uploads_by_itself(home: Path, running: Register) -> None:
    with TerminalClient(home) as client:
        client.enrol(person_from(person_json(1)), [record_of(1)], portrait=picture(1))
        assert running.enrolments.portraits == {"doc-1": picture(1)}
        running.enrolments.hook = lambda number, context: refuse(
            context, Code.FAILED_PRECONDITION, "UPLOAD_MISSING", "upload it"
        )
        with pytest.raises(RemoteError, match="UPLOAD_MISSING"):
            client.enrol(person_from(person_json(2)), [record_of(2)], portrait=picture(2))


def test_what_is_being_sent_says_so_and_no_longer_than_that(
    outbox: Outbox, running: Register, home: Path
) -> None:
    inside, release = threading.Event(), threading.Event()

    def hold(number: int, context: grpc.ServicerContext) -> None:
        inside.set()
        release.wait(10)

    running.enrolments.hook = hold
    key, other = submit(outbox, 1, b""), submit(outbox, 2, b"")
    thread = threading.Thread(target=outbox.send)
    thread.start()
    assert inside.wait(10)
    with Outbox(home, policy=PROMPT) as elsewhere:
        seen = {one.key: one.state for one in elsewhere.entries()}
        stored = {one.state for one in elsewhere.queue.entries()}
    assert seen == {key: EntryState.SENDING, other: EntryState.QUEUED}
    assert stored == {EntryState.QUEUED}
    release.set()
    thread.join(10)
    assert {one.state for one in outbox.entries()} == {EntryState.SENT}


def test_the_word_sending_does_not_outlive_its_sender(outbox: Outbox, home: Path) -> None:
    key = submit(outbox, 1, b"")
    outbox._being_sent.write(key)  # and then it was killed: nobody holds the lock
    assert [one.state for one in outbox.entries()] == [EntryState.QUEUED]


# -- the terminal dies at each of its steps --


@pytest.mark.parametrize("power", [0, 1, 2], ids=lambda seed: f"power-{seed}" if seed else "kill")
def test_a_queue_that_dies_keeps_a_submission_with_all_its_pictures_or_nothing(
    tmp_path: Path, power: int
) -> None:
    clock, pictures = Clock(), [picture(1, 100), picture(2, 200)]
    key, deaths = "k" * 16, Counter[str]()
    for after in range(100):
        home, doing = tmp_path / str(after), "keeping"
        disk = mortal(Fate(after, bool(power), seed=power))
        try:
            queue = SubmissionQueue(home, now=clock, disk=disk)
            queue.put(key, "ticket", b"request", pictures)
            doing = "refusing"
            queue.mark_attention(key, "X", "X", "x")
            doing = "discarding"
            queue.discard(key)
        except Killed:
            deaths[doing] += 1
            queue = SubmissionQueue(home, now=clock)
            entries = queue.entries()
            assert entries or doing != "refusing"
            if entries and doing != "discarding":
                assert queue.pictures(key) == pictures
            if not entries:
                assert picture_files(home) == []
            continue
        break
    assert min(deaths[one] for one in ("keeping", "refusing", "discarding")) >= 3
    assert picture_files(home) == []


# -- everything dies --


@dataclass(frozen=True)
class Leg:
    """One life of the terminal's process: what it captures, and when it dies.

    While nobody is logged in nothing is taken; what was taken before is still sent.
    """

    captures: int
    dies_after: int
    power: bool
    seed: int
    line_away: bool
    restart_register: bool
    logged_out: bool = False


LEGS = st.lists(
    st.builds(
        Leg,
        captures=st.integers(0, 2),
        dies_after=st.integers(0, 60),
        power=st.booleans(),
        seed=st.integers(0, 3),
        line_away=st.booleans(),
        restart_register=st.booleans(),
        logged_out=st.booleans(),
    ),
    min_size=1,
    max_size=4,
)
FAULTS = ("before", "after", "forget", "busy", "broken", "cut in an upload")
CALM = Leg(1, 1 << 30, False, 0, False, False)
# One story that has everything in it, whatever else is drawn.
EVERYTHING = [
    replace(CALM, captures=2),
    replace(CALM, restart_register=True),
    replace(CALM, dies_after=12),
    replace(CALM, dies_after=14, power=True),
    replace(CALM, line_away=True),
    replace(CALM, logged_out=True),
    *[CALM] * 2,
]
MOODS = st.lists(st.sampled_from(["", *FAULTS[:5]]), max_size=6)
CUTS = st.sets(st.integers(0, 12), max_size=5)
PORTRAITS = st.lists(
    st.sampled_from([0, 10, CHUNK_BYTES + 1, 3 * CHUNK_BYTES]), min_size=8, max_size=8
)


class Stage:
    """A register with its line, made once; each story gets a terminal and a memory of its own."""

    def __init__(self, where: Path, authority: Authority, provisioning: Provisioning) -> None:
        self.where = where
        self.authority = authority
        self.provisioning = provisioning
        self.enrolments = Restless()
        self.stories = 0
        self.seen: Counter[str] = Counter()

    @contextmanager
    def opened(self) -> Iterator[None]:
        with register(self.authority, self.provisioning, self.enrolments) as self.running:
            token = self.provisioning.create_token("hall", "t-1").token
            home = self.where / "t"
            provision_terminal(self.running.provisioning, token, home, self.running.main)
            with Proxy(self.running.main) as self.proxy:
                yield

    def play(self, legs: list[Leg], moods: list[str], cuts: set[int], sizes: list[int]) -> None:
        running, proxy, enrolments = self.running, self.proxy, self.enrolments
        self.stories += 1
        home = self.where / f"story-{self.stories}"
        home.mkdir()
        for file in ("key.pem", "certificate.pem", "ca.pem", "server"):
            (home / file).write_bytes((self.where / "t" / file).read_bytes())
        (home / "key.pem").chmod(0o600)
        logged_in(home)
        enrolments.forget_everything()
        enrolments.moods, enrolments.cuts, enrolments.chunks = list(moods), set(cuts), 0
        enrolments.cut = proxy.cut
        acknowledged: dict[str, bytes] = {}
        wanted: list[tuple[int, bytes]] = []
        for leg in legs:
            proxy.target("127.0.0.1:9" if leg.line_away else running.main)
            if leg.line_away:
                proxy.cut()
            fresh = range(len(wanted), len(wanted) + leg.captures)
            wanted += [(number, picture(number, sizes[number])) for number in fresh]
            if leg.logged_out:
                (home / SESSION_FILE).unlink(missing_ok=True)
            else:
                logged_in(home)
            fate = Fate(leg.dies_after, leg.power, seed=leg.seed)
            try:
                with self._outbox(home, proxy, mortal(fate)) as outbox:
                    for number, face in wanted:  # who was not acknowledged is handed in again
                        if f"doc-{number}" not in acknowledged and self._submitted(
                            outbox, number, face
                        ):
                            acknowledged[f"doc-{number}"] = face
                    outbox.send()
                    outbox.send()
            except Killed:
                self.seen["power lost" if leg.power else "terminal killed"] += 1
            self.seen["line away"] += leg.line_away
            if leg.restart_register:
                with register(self.authority, self.provisioning, enrolments) as another:
                    proxy.target(another.main)
                    proxy.cut()
                    with self._outbox(home, proxy) as outbox:
                        outbox.send()
                proxy.cut()
                self.seen["register restarted"] += 1
        proxy.target(running.main)
        enrolments.moods.clear()
        enrolments.cuts.clear()
        self._check(home, proxy, enrolments, acknowledged)

    def _outbox(self, home: Path, proxy: Proxy, disk: Callable[[Path], Disk] = Disk) -> Outbox:
        return Outbox(home, None, None, PROMPT, proxy.address, disk=disk)

    def _submitted(self, outbox: Outbox, number: int, face: bytes) -> bool:
        try:
            submit(outbox, number, face)
        except NotLoggedInError:
            self.seen["nobody logged in"] += 1
            return False
        return True

    def _check(
        self, home: Path, proxy: Proxy, enrolments: Restless, acknowledged: dict[str, bytes]
    ) -> None:
        for _ in range(30):
            with self._outbox(home, proxy) as outbox:
                outbox.send()
                entries = outbox.queue.entries()
            if all(one.state is EntryState.SENT for one in entries):
                break
        assert Counter(one.state for one in entries) == Counter(
            {EntryState.SENT: len(entries)} if entries else {}
        )
        # Nothing lost: everybody whom the terminal took is there, with the face they came with.
        assert acknowledged.items() <= enrolments.portraits.items()
        # Nobody twice: as many applications as people, and as many people as documents.
        assert len(enrolments.by_id) == len(enrolments.portraits) == len(enrolments.people)
        assert picture_files(home) == []
        # And whoever is there, an operator has given their word for.
        assert enrolments.unvouched == 0
        self.seen.update(enrolments.seen)
        enrolments.seen.clear()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    where, clock = tmp_path_factory.mktemp("stage"), FakeClock()
    authority = init_authority(where / "authority", clock)
    made = Stage(where, authority, Provisioning(authority, MemoryTerminalStore(), clock))
    with made.opened():
        yield made


def story(examples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    drawn = given(legs=LEGS, moods=MOODS, cuts=CUTS, sizes=PORTRAITS)
    # Time is not a property here; and a story that fails is told whole, so shrinking may take long.
    limits = settings(
        max_examples=examples,
        deadline=timedelta(seconds=60),
        derandomize=True,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    told = example(
        legs=EVERYTHING,
        moods=["broken", "busy", "before", "forget", "after", *FAULTS[:5]],
        cuts={1, 4},
        sizes=[3 * CHUNK_BYTES] * 9,
    )
    return lambda test: limits(told(drawn(test)))


@story(int(os.environ.get("ANJU_FAULT_STORIES", "25")))
def test_whatever_dies_nothing_is_lost_and_nobody_is_enrolled_twice(
    stage: Stage,
    legs: list[Leg],
    moods: list[str],
    cuts: set[int],
    sizes: list[int],
) -> None:
    stage.play(legs, moods, cuts, sizes)


def test_the_stories_above_had_everything_in_them(stage: Stage) -> None:
    if stage.stories < 25:
        pytest.skip("the stories were not told in this run")
    for event in (
        "terminal killed",
        "power lost",
        "line away",
        "register restarted",
        "nobody logged in",
        *FAULTS,
    ):
        assert stage.seen[event], event


def test_the_story_notices_a_register_that_enrols_twice(stage: Stage) -> None:
    """The proof must be able to fail."""
    stage.enrolments.careless = True  # takes a repeated key for a new application
    with pytest.raises(AssertionError):
        stage.play([CALM], ["after"], set(), [0] * 8)
    stage.enrolments.careless = False


def test_the_story_notices_a_terminal_that_forgets(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(self: SubmissionQueue, key: str, *_: object) -> None:
        self._disk.remove(*(name for name in self._disk.names() if key in name))

    monkeypatch.setattr(SubmissionQueue, "mark_attention", forgetful)
    stage.enrolments.hook = lambda number, context: refuse(
        context, Code.INVALID_ARGUMENT, "DETAILS_INVALID", "a field is wrong"
    )
    with pytest.raises(AssertionError):
        stage.play([CALM], [], set(), [0] * 8)
    stage.enrolments.hook = lambda number, context: None


def test_the_story_notices_pictures_deleted_before_their_time(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hasty(self: SubmissionQueue, key: str) -> bytes:
        self._remove_pictures(key)
        return request(self, key)

    request = SubmissionQueue.request
    monkeypatch.setattr(SubmissionQueue, "request", hasty)
    with pytest.raises(AssertionError):
        stage.play([CALM], [], set(), [3 * CHUNK_BYTES] * 8)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@story(1_500)
def test_whatever_dies_nothing_is_lost_in_a_long_run(
    stage: Stage,
    legs: list[Leg],
    moods: list[str],
    cuts: set[int],
    sizes: list[int],
) -> None:
    stage.play(legs, moods, cuts, sizes)
