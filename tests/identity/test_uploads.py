"""Pictures that come in pieces: what the register keeps, refuses and forgets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from identity import images, reception
from identity import uploads as uploads_module
from identity.config import CaptureConfig
from identity.enrolment import UploadedFinger
from identity.errors import IdentityError, InvalidRequestError, OverloadError, StateError
from identity.reception import Answer, Reception, uploader
from identity.types import ApplicationState, MissingFinger, MissingReason
from identity.uploads import KEPT, MAX_CHUNK_BYTES, STEP_BYTES, Start, UploadDesk
from issuance import photo
from tests.devices.test_extract import file_of, ridges
from tests.identity.kit import ELSEWHERE, TERMINAL, World, command, once
from tests.issuance.kit import portrait

HERE, THERE = uploader(TERMINAL), uploader(ELSEWHERE)
BIG = bytes(range(256)) * 4_096  # 1 MiB: several steps


def digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def pieces(content: bytes, size: int = 65_536) -> Iterator[bytes]:
    for at in range(0, len(content), size):
        yield content[at : at + size]


def cut_after(content: bytes, length: int) -> Iterator[bytes]:
    """The line breaks once so many bytes have come."""
    yield from pieces(content[:length])
    raise ConnectionResetError


def upload(world: World, content: bytes, owner: str = HERE, offset: int = 0) -> None:
    start = Start(digest(content), len(content), offset)
    world.uploads.receive(owner, start, pieces(content[offset:]))


def refusal(call: object, *arguments: object) -> str:
    with pytest.raises(IdentityError) as caught:
        call(*arguments)  # type: ignore[operator]
    return str(caught.value.reason)


def test_an_upload_is_whole_sealed_and_its_owners_alone(world: World) -> None:
    upload(world, BIG)
    assert world.uploads.content(HERE, digest(BIG)) == BIG
    assert refusal(world.uploads.content, THERE, digest(BIG)) == "UPLOAD_MISSING"
    for path in world.directory.glob("register.sqlite3*"):
        kept = path.read_bytes()
        assert BIG[:64] not in kept
        assert digest(BIG) not in kept
        assert digest(BIG).hex().encode() not in kept
    before = world.dump()
    upload(world, BIG, offset=len(BIG))  # once more changes nothing
    assert world.dump() == before


@pytest.mark.parametrize("arrived", [1, 65_536, STEP_BYTES, STEP_BYTES + 5, len(BIG) - 1])
def test_what_came_before_the_cut_is_kept(world: World, arrived: int) -> None:
    start = Start(digest(BIG), len(BIG), 0)
    with pytest.raises(ConnectionResetError):
        world.uploads.receive(HERE, start, cut_after(BIG, arrived))
    standing = world.uploads.standing(HERE, digest(BIG))
    assert (standing.received, standing.complete) == (arrived, False)
    assert refusal(world.uploads.content, HERE, digest(BIG)) == "UPLOAD_MISSING"
    upload(world, BIG, offset=arrived)
    assert world.uploads.content(HERE, digest(BIG)) == BIG


@given(
    content=st.binary(min_size=1, max_size=3_000),
    cuts=st.lists(st.integers(0, 3_000), max_size=5),
    chunk=st.integers(1, 700),
    wrong=st.booleans(),
)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_however_it_is_cut_an_upload_is_what_was_sent_or_nothing(
    world: World, content: bytes, cuts: list[int], chunk: int, wrong: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uploads_module, "STEP_BYTES", 256)
        name, refused = digest(content + b"!" if wrong else content), ""
        for cut in [*cuts, len(content)]:
            at = world.uploads.standing(HERE, name).received
            if at > min(cut, len(content)):
                continue
            start = Start(name, len(content), at)
            try:
                world.uploads.receive(HERE, start, pieces(content[at:cut], chunk))
            except InvalidRequestError as error:
                refused = error.reason
        assert refused == ("DIGEST_MISMATCH" if wrong else "")
        if wrong:
            assert world.uploads.standing(HERE, name).received < len(content)
            assert refusal(world.uploads.content, HERE, name) == "UPLOAD_MISSING"
        else:
            assert world.uploads.content(HERE, name) == content
        with world.database.write() as tx:
            tx.uploads.remove(HERE, name)


@pytest.mark.parametrize(
    ("start", "chunks", "reason"),
    [
        (Start(b"short", 10, 0), [], "UPLOAD_INVALID"),
        (Start(digest(b""), 0, 0), [], "UPLOAD_INVALID"),
        (Start(digest(b"x"), -1, 0), [], "UPLOAD_INVALID"),
        (Start(digest(b"x"), 10, 11), [], "UPLOAD_INVALID"),
        (Start(digest(b"x"), 10, 5), [], "UPLOAD_OFFSET"),
        (Start(digest(b"x"), (8 << 20) + 1, 0), [], "UPLOAD_TOO_LARGE"),
        (Start(digest(b"x"), 10, 0), [b"12345678901"], "UPLOAD_INVALID"),
        (Start(digest(b"x"), 10, 0), [b""], "UPLOAD_INVALID"),
        (Start(digest(b"x"), 1 << 20, 0), [bytes(MAX_CHUNK_BYTES + 1)], "UPLOAD_INVALID"),
        (Start(digest(b"x"), 2, 0), [b"y", b"z"], "DIGEST_MISMATCH"),
    ],
)
def test_what_is_malformed_is_refused(
    world: World, start: Start, chunks: list[bytes], reason: str
) -> None:
    assert refusal(world.uploads.receive, HERE, start, chunks) == reason


def test_two_streams_at_once_cannot_mix(world: World) -> None:
    """The first still hangs on the server when the terminal has come back and gone on."""
    name = digest(BIG)

    def first() -> Iterator[bytes]:
        yield from pieces(BIG[:STEP_BYTES])
        world.uploads.receive(HERE, Start(name, len(BIG), STEP_BYTES), pieces(BIG[STEP_BYTES:]))
        yield BIG[STEP_BYTES : STEP_BYTES + 10]

    start = Start(name, len(BIG), 0)
    assert refusal(world.uploads.receive, HERE, start, first()) == "UPLOAD_OFFSET"
    assert world.uploads.content(HERE, name) == BIG


def test_a_crash_before_the_last_word_is_made_good(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(UploadDesk, "_complete", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            upload(world, BIG)
    standing = world.uploads.standing(HERE, digest(BIG))
    assert (standing.received, standing.complete) == (len(BIG), False)
    upload(world, BIG, offset=len(BIG))
    assert world.uploads.content(HERE, digest(BIG)) == BIG


def test_one_terminal_and_all_together_have_their_bounds(world: World) -> None:
    limits = CaptureConfig(
        max_upload_bytes=65_536, upload_bytes_per_terminal=100_000, upload_bytes=150_000
    )
    desk = UploadDesk(world.database, limits, world.clock)

    def announce(owner: str, number: int) -> None:
        desk.receive(owner, Start(digest(bytes([number])), 60_000, 0), [b"x"])

    announce(HERE, 1)
    with pytest.raises(OverloadError) as caught:
        announce(HERE, 2)
    assert (caught.value.reason, caught.value.retry_after_s > 0) == ("UPLOADS_FULL", True)
    announce(THERE, 3)
    with pytest.raises(OverloadError):
        announce("west-gate/hall-3", 4)
    world.clock.advance(KEPT + timedelta(seconds=1))
    assert desk.forget_old() == 2
    announce("west-gate/hall-3", 4)


def test_uploads_nobody_goes_on_with_are_forgotten_after_a_day(world: World) -> None:
    upload(world, BIG)
    world.clock.advance(KEPT - timedelta(hours=1))
    upload(world, b"later")
    assert world.uploads.forget_old() == 0
    world.clock.advance(timedelta(hours=2))
    assert world.uploads.forget_old() == 1
    assert world.uploads.standing(HERE, digest(BIG)).received == 0
    assert world.uploads.content(HERE, digest(b"later")) == b"later"
    assert not any(
        "upload_pieces" in line and "INSERT" in line and len(line) > 10_000 for line in world.dump()
    )


# -- what an application does with them --


def enrol(world: World, key: str, **changes: object) -> Answer:
    wanted = replace(command(1), **changes)  # type: ignore[arg-type]
    change = once(key=key, content=repr(changes))
    return world.reception.enrol(wanted, change, TERMINAL, lambda: None)


def test_an_uploaded_portrait_is_used_up_by_its_application(world: World) -> None:
    face = portrait()
    key = "k" * 16
    assert refusal(lambda: enrol(world, key, portrait_sha256=digest(face))) == "UPLOAD_MISSING"
    assert world.registrants() == 0
    upload(world, face)
    answer = enrol(world, key, portrait_sha256=digest(face))
    registrant_id = answer.application.registrant_id
    assert registrant_id is not None
    with world.database.read() as tx:
        kept = tx.people.registrant(registrant_id).particulars
    assert kept is not None
    assert kept.photo == photo.make(face).data
    assert world.uploads.standing(HERE, digest(face)).received == 0
    # The answer got lost: the same again needs no portrait any more.
    assert enrol(world, key, portrait_sha256=digest(face)) == answer
    assert world.registrants() == 1


def test_a_portrait_in_the_call_is_reduced_once_however_often_it_is_sent(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    reduced: list[bytes] = []

    def counting(portrait: bytes) -> bytes:
        reduced.append(portrait)
        return images.photo_of(portrait)

    monkeypatch.setattr(reception, "photo_of", counting)
    face, key = portrait(), "k" * 16
    answers = [enrol(world, key, portrait=face) for _attempt in range(2)]
    assert answers[0] == answers[1]
    assert reduced == [face]
    with world.database.read() as tx:
        kept = tx.people.registrant(str(answers[0].application.registrant_id)).particulars
    assert kept is not None
    assert kept.photo == photo.make(face).data


def test_what_was_uploaded_and_is_no_portrait_stays_for_the_correction(world: World) -> None:
    upload(world, b"junk")
    key = "k" * 16
    assert refusal(lambda: enrol(world, key, portrait_sha256=digest(b"junk"))) == "PORTRAIT_INVALID"
    assert world.registrants() == 0


def test_a_finger_may_be_extracted_here_where_the_city_allows_it(world: World) -> None:
    image = file_of(ridges()[0])
    upload(world, image)
    answer = enrol(world, "k" * 16, samples=(), images=(UploadedFinger(2, digest(image), 0),))
    assert answer.application.state is ApplicationState.ENROLLED
    assert answer.application.registrant_id is not None
    with world.database.read() as tx:
        assert tx.people.registrant(answer.application.registrant_id).fingers == (2,)
    assert world.uploads.standing(HERE, digest(image)).received == 0
    plain = Reception(world.enrolment, world.desk, world.uploads)
    change = once(key="l" * 16)
    wanted = replace(command(2), images=(UploadedFinger(2, digest(image), 0),))
    assert refusal(plain.enrol, wanted, change, TERMINAL, lambda: None) == "IMAGES_NOT_TAKEN"


def test_more_images_than_fingers_are_not_even_looked_at(world: World) -> None:
    images = tuple(UploadedFinger(0, digest(bytes([n])), 500) for n in range(11))
    assert refusal(lambda: enrol(world, "k" * 16, images=images)) == "SAMPLES_MISSING"


# -- fingers that are missing --


def missing(*fingers: tuple[int, MissingReason]) -> tuple[MissingFinger, ...]:
    return tuple(MissingFinger(*one) for one in fingers)


def stated(world: World, fingers: tuple[MissingFinger, ...]) -> object:
    return replace(command(1).particulars, missing_fingers=fingers)


def test_a_reason_is_kept_sealed_with_the_person_and_refuses_nobody(world: World) -> None:
    gone = missing((6, MissingReason.AMPUTATED), (1, MissingReason.DECLINED))
    answer = enrol(world, "k" * 16, particulars=stated(world, gone))
    assert answer.application.state is ApplicationState.ENROLLED
    assert answer.application.registrant_id is not None
    with world.database.read() as tx:
        kept = tx.people.registrant(answer.application.registrant_id).particulars
    assert kept is not None
    assert kept.missing_fingers == gone
    assert not any("missing" in line.lower() for line in world.dump() if "INSERT" in line)


@pytest.mark.parametrize("asked", [3, 10])
def test_fewer_fingers_than_asked_need_a_reason_each(world: World, asked: int) -> None:
    world.enrolment._fingers_asked = asked
    assert refusal(lambda: enrol(world, "k" * 16)) == "FINGERS_UNEXPLAINED"
    free = [number for number in range(1, 11) if number not in positions()]
    gone = missing(*((number, MissingReason.WORN) for number in free[: asked - 2]))
    answer = enrol(world, "l" * 16, particulars=stated(world, gone))
    assert answer.application.state is ApplicationState.ENROLLED


def positions() -> set[int]:
    return {int(sample.template.position) for sample in command(1).samples}


def test_a_finger_is_captured_or_missing_and_named_once(world: World) -> None:
    captured = next(iter(positions()))
    for gone in (
        missing((captured, MissingReason.WORN)),
        missing((6, MissingReason.WORN), (6, MissingReason.BANDAGED)),
    ):
        reason = refusal(lambda gone=gone: enrol(world, "k" * 16, particulars=stated(world, gone)))
        assert reason == "MISSING_FINGERS_INVALID"


def test_without_any_finger_the_answer_says_what_to_do(world: World) -> None:
    gone = missing(*((number, MissingReason.AMPUTATED) for number in range(1, 11)))
    with pytest.raises(StateError, match="Do not turn them away") as caught:
        enrol(world, "k" * 16, samples=(), particulars=stated(world, gone))
    assert caught.value.reason == "NO_FINGERS"
    assert refusal(lambda: enrol(world, "k" * 16, samples=())) == "SAMPLES_MISSING"
    assert world.registrants() == 0


def test_the_largest_image_is_refused_before_it_is_unpacked(tmp_path: Path, world: World) -> None:
    Image.new("L", (2_000, 2_000)).save(tmp_path / "huge.png", dpi=(500, 500))
    image = (tmp_path / "huge.png").read_bytes()
    upload(world, image)
    with pytest.raises(Exception, match="2000 x 2000 pixels"):
        enrol(world, "k" * 16, samples=(), images=(UploadedFinger(2, digest(image), 0),))
