"""What lies on the disk: no name, document, address, template or permit text in clear, anywhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from anju.v1 import (
    adjudication_pb2,
    adjudication_pb2_grpc,
    common_pb2,
    enrolment_pb2,
    enrolment_pb2_grpc,
    matching_pb2,
    matching_pb2_grpc,
    permits_pb2,
    permits_pb2_grpc,
    register_pb2,
    register_pb2_grpc,
)
from devices.terminal import connect
from devices.terminal.wire import new_idempotency_key
from identity.app import open_installation
from identity.server_process import loopback_toml, serving
from identity.setup import create_installation
from tests.identity.service_kit import (
    PURPOSE,
    admit_terminal,
    application,
    refusal,
    samples_of,
    today,
    working_at,
)

PEOPLE = range(5)
REASON = "第二位核查员确认此人就是样例"
STATEMENT = "我叫样例本人，我不是登记的那个人"
LOST = "持证人样例报称证件遗失"
NEW_ADDRESS = "示例区搬家以后的新地址77号"


@dataclass(frozen=True)
class Used:
    """A working directory after much use, and what must not be found in it."""

    directory: Path
    secrets: dict[str, bytes]


def spellings(text: str) -> list[bytes]:
    """A text as it might be written down."""
    escaped = json.dumps(text)[1:-1].encode()
    return [
        text.encode(),
        text.encode("utf-16-le"),
        text.encode("utf-16-be"),
        text.encode("gb18030"),
        escaped,
        escaped.upper(),
    ]


def secrets_of(request: enrolment_pb2.EnrolRequest, who: str) -> Iterator[tuple[str, bytes]]:
    details = request.details
    for what, text in (
        ("name", details.full_name),
        ("document", details.document_number),
        ("address", request.residence.address),
    ):
        for number, spelling in enumerate(spellings(text)):
            yield f"{what} of {who} ({number})", spelling
    for number, sample in enumerate(request.samples):
        yield f"template {number} of {who}", sample.data
        # A piece from the middle, in case a record is cut into pages; and as text.
        middle = len(sample.data) // 2
        yield f"part of template {number} of {who}", sample.data[middle : middle + 24]
        yield f"base64 of template {number} of {who}", base64.b64encode(sample.data)[40:80]
        yield f"hex of template {number} of {who}", sample.data[middle : middle + 24].hex().encode()


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Used:
    directory = tmp_path_factory.mktemp("rest") / "anju"
    create_installation(directory, loopback_toml()[0])
    with open_installation(directory) as installation:
        admit_terminal(installation, "east-gate", "hall-1")
    secrets: dict[str, bytes] = {}
    with (
        serving(directory),
        working_at(directory / "terminals" / "hall-1") as terminal,
        connect(directory / "operators" / "operator-1") as operator,
        connect(directory / "operators" / "operator-2") as second,
    ):
        enrolment = enrolment_pb2_grpc.EnrolmentServiceStub(terminal.channel)
        register = register_pb2_grpc.RegisterServiceStub(operator.channel)
        told = {}
        for index in PEOPLE:
            request = application(index)
            secrets.update(secrets_of(request, f"person {index}"))
            told[index] = enrolment.Enrol(request).application
            secrets[f"permit of person {index}"] = told[index].permit.qr_text.encode()[:60]
        # A double, decided upon, with a reason that names people.
        request = application(0, name=90, impression=1)
        secrets.update(secrets_of(request, "the double"))
        double = enrolment.Enrol(request).application
        for connection in (operator, second):
            adjudication_pb2_grpc.AdjudicationServiceStub(connection.channel).DecideCase(
                adjudication_pb2.DecideCaseRequest(
                    idempotency_key=new_idempotency_key(),
                    case_id=double.case_id,
                    verdict=adjudication_pb2.VERDICT_REJECT,
                    reason=REASON,
                )
            )
        secrets.update((f"reason ({n})", one) for n, one in enumerate(spellings(REASON)))
        adjudication_pb2_grpc.AdjudicationServiceStub(operator.channel).AppealCase(
            adjudication_pb2.AppealCaseRequest(
                idempotency_key=new_idempotency_key(), case_id=double.case_id, statement=STATEMENT
            )
        )
        secrets.update((f"appeal ({n})", one) for n, one in enumerate(spellings(STATEMENT)))
        permits_pb2_grpc.PermitServiceStub(operator.channel).ChangePermitStatus(
            permits_pb2.ChangePermitStatusRequest(
                idempotency_key=new_idempotency_key(),
                permit_number=told[4].permit.permit_number,
                state=permits_pb2.PERMIT_STATE_SUSPENDED,
                reason=LOST,
            )
        )
        secrets.update((f"status reason ({n})", one) for n, one in enumerate(spellings(LOST)))
        # A question, a move, a departure and an erasure.
        probe = samples_of(1, 3)
        secrets["probe"] = probe[0].data[60:84]
        matching_pb2_grpc.MatchingServiceStub(operator.channel).Identify(
            matching_pb2.IdentifyRequest(purpose=PURPOSE, samples=probe)
        )
        moved = common_pb2.Residence()
        moved.CopyFrom(application(2).residence)
        moved.address = NEW_ADDRESS
        register.ChangeResidence(
            register_pb2.ChangeResidenceRequest(
                idempotency_key=new_idempotency_key(),
                registrant_id=told[2].registrant_id,
                residence=moved,
            )
        )
        secrets.update((f"new address ({n})", one) for n, one in enumerate(spellings(NEW_ADDRESS)))
        day = today()
        register.RecordDeparture(
            register_pb2.RecordDepartureRequest(
                idempotency_key=new_idempotency_key(),
                registrant_id=told[3].registrant_id,
                departure_date=common_pb2.Date(year=day.year, month=day.month, day=day.day),
            )
        )
        register.EraseRegistrant(
            register_pb2.EraseRegistrantRequest(
                idempotency_key=new_idempotency_key(), registrant_id=told[3].registrant_id
            )
        )
        # Refusals, which are the likeliest to be written into a log.
        wrong = application(7)
        wrong.details.document_number = wrong.details.document_number[:-1] + "?"
        assert refusal(lambda: enrolment.Enrol(wrong)).reason == "DETAILS_INVALID"
        broken = application(8)
        broken.samples[0].data = broken.samples[0].data[:-1]
        assert refusal(lambda: enrolment.Enrol(broken)).reason == "DECODE_FAILED"
        secrets.update(secrets_of(wrong, "the refused"))
        secrets.update(secrets_of(broken, "the misread"))
        # While the server runs, the write-ahead log lies beside the database.
        assert (directory / "register.sqlite3-wal").stat().st_size > 0
        found = dict(search(directory, secrets))
        assert not found, found
    return Used(directory, secrets)


def search(directory: Path, secrets: dict[str, bytes]) -> Iterator[tuple[str, str]]:
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            for name, secret in secrets.items():
                if secret in content:
                    yield name, str(path.relative_to(directory))


def test_the_search_would_find_what_lies_there_in_clear(used: Used, tmp_path: Path) -> None:
    assert len(used.secrets) > 100
    assert min(len(secret) for secret in used.secrets.values()) >= 8
    for number, secret in enumerate(used.secrets.values()):
        (tmp_path / str(number)).write_bytes(b"before" + secret + b"after")
    assert {name for name, _ in search(tmp_path, used.secrets)} == used.secrets.keys()


def test_nothing_of_anybody_lies_on_the_disk_in_clear(used: Used) -> None:
    files = [path.relative_to(used.directory) for path in used.directory.rglob("*")]
    expected = ("register.sqlite3", "server.log", "index", "issuance/journal", "keys")
    assert {str(one) for one in files} >= set(expected)
    assert (used.directory / "server.log").stat().st_size > 0
    found = dict(search(used.directory, used.secrets))
    assert not found, found
