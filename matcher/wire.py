"""Messages of ``anju.v1`` <-> templates and candidate lists."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from anju.v1 import common_pb2, matching_pb2
from matcher.errors import DecodeError
from matcher.formats import RecordFormat, decode_as
from matcher.types import CandidateList, FingerPosition, Template


def template_from(sample: common_pb2.Sample) -> Template:
    """The one finger view of a sample, at the position its message or its record gives.

    Raises:
        DecodeError: FORMAT_UNSPECIFIED, FORMAT_MISMATCH, FORMAT_AMBIGUOUS, NOT_ONE_VIEW,
            POSITION_CONFLICT, or the record's own fault.
    """
    try:
        stated_format = RecordFormat(sample.format)
    except ValueError as error:
        known = ", ".join(f"SAMPLE_FORMAT_{one.name}" for one in RecordFormat)
        raise DecodeError(
            "FORMAT_UNSPECIFIED", f"the sample's format must be one of {known}"
        ) from error
    views = decode_as(stated_format, sample.data)
    if len(views) != 1:
        raise DecodeError("NOT_ONE_VIEW", f"a sample holds one finger view, got {len(views)}")
    (view,) = views
    try:
        stated = FingerPosition(sample.position)
    except ValueError as error:
        raise DecodeError(
            "BAD_POSITION", f"finger position {sample.position} is not one of 0 to 10"
        ) from error
    if stated is FingerPosition.UNKNOWN or stated is view.position:
        return view
    if view.position is not FingerPosition.UNKNOWN:
        raise DecodeError(
            "POSITION_CONFLICT",
            f"the message says finger {stated.name}, the record says {view.position.name}",
        )
    return replace(view, position=stated)


def templates_from(samples: Iterable[common_pb2.Sample]) -> list[Template]:
    return [template_from(sample) for sample in samples]


def identify_response(
    found: CandidateList, grey: float, same: float
) -> matching_pb2.IdentifyResponse:
    return matching_pb2.IdentifyResponse(
        candidates=[
            matching_pb2.Candidate(
                registrant_id=candidate.subject_id, similarity=candidate.similarity
            )
            for candidate in found.candidates
        ],
        references_searched=found.searched,
        grey_threshold=grey,
        same_threshold=same,
    )
