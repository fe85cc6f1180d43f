"""Every format of the contract, from the wire to the register and back from a restart."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from anju.v1 import common_pb2, enrolment_pb2, enrolment_pb2_grpc
from devices.terminal import Sample, SampleFormat, TerminalClient
from devices.terminal.wire import enrol_request, new_idempotency_key
from identity.app import Server, open_installation
from matcher import codec, codec_2011, codec_ansi378
from matcher.record_parts import Minutiae
from tests.identity.kit import person, records
from tests.identity.service_kit import refusal, running


def rewritten(record: bytes, wanted: SampleFormat) -> bytes:
    """The one view of a record of 2005, written in another format."""
    parsed = codec.parse(record)
    [view] = parsed.views
    if wanted is SampleFormat.ISO_19794_2_2005:
        return record
    if wanted is SampleFormat.ISO_19794_2_2011:
        found = Minutiae(view.x, view.y, view.angle, view.kind, view.quality)
        return codec_2011.serialize(
            codec_2011.Record(
                (codec_2011.Representation(view.position, 0, parsed.width, parsed.height, found),)
            )
        )
    angle = np.rint(view.angle * (180 / 256)).astype(np.uint8) % 180
    found = Minutiae(view.x, view.y, angle, view.kind, view.quality)
    old = wanted is SampleFormat.ANSI_INCITS_378_2004
    version = codec_ansi378.VERSION_2004 if old else codec_ansi378.VERSION_2009
    shown = codec_ansi378.View(view.position, 0, parsed.width, parsed.height, found)
    return codec_ansi378.serialize(codec_ansi378.Record(version, (shown,), owner=1))


def samples(who: int, wanted: SampleFormat, impression: int = 0) -> list[Sample]:
    return [Sample(rewritten(one, wanted), format=wanted) for one in records(who, impression)]


def test_a_finger_is_enrolled_in_one_format_and_recognised_in_every_other(
    tmp_path: Path,
) -> None:
    now = datetime.now(UTC)
    with running(tmp_path / "anju") as service:
        service.terminal("east-gate", "hall-1").close()
        home = service.directory / "terminals" / "hall-1"
        with TerminalClient(home) as terminal:
            for who, wanted in enumerate(SampleFormat):
                answer = terminal.enrol(person(who, now), samples(who, wanted))
                assert answer.state.name == "ENROLLED"
                for other in SampleFormat:
                    again = terminal.enrol(person(who, now), samples(who, other, 1))
                    assert (again.state.name, again.registrant_id) == (
                        "RECOGNISED",
                        answer.registrant_id,
                    )
        enrolled = len(service.installation.matcher)
        assert enrolled == 2 * len(SampleFormat)
    # The index is rebuilt from the records as they were sent.
    for stale in (service.directory / "index").iterdir():
        stale.unlink()
    with open_installation(service.directory) as installation:
        server = Server(installation)
        server.start()
        assert len(installation.matcher) == enrolled
        with TerminalClient(home) as terminal:
            found = terminal.enrol(person(2, now), samples(2, SampleFormat(1), 2))
            assert found.state.name == "RECOGNISED"
        server.stop()


def test_bytes_of_another_format_are_refused_with_its_name(tmp_path: Path) -> None:
    with running(tmp_path / "anju") as service:
        connection = service.terminal("east-gate", "hall-1")
        stub = enrolment_pb2_grpc.EnrolmentServiceStub(connection.channel)
        request = enrol_request(
            person(0, datetime.now(UTC)), records(0), True, None, new_idempotency_key()
        )
        assert isinstance(request, enrolment_pb2.EnrolRequest)
        for sample in request.samples:
            sample.format = common_pb2.SAMPLE_FORMAT_ANSI_INCITS_378_2009
        told = refusal(lambda: stub.Enrol(request))
        assert (told.reason, told.detail) == ("DECODE_FAILED", "FORMAT_MISMATCH")
        assert "its bytes are ISO/IEC 19794-2:2005" in told.message
        connection.close()
