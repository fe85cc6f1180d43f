"""A portrait given with an application becomes the face on the permit, and nothing else stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from anju.v1 import enrolment_pb2_grpc
from devices.errors import RemoteError
from devices.terminal import TerminalClient
from identity.app import Server, open_installation
from identity.server_process import loopback_toml
from identity.setup import create_installation
from identity.store.people import _pack, _unpack
from issuance import photo
from issuance.trust import TrustStore
from issuance.verifier import verify
from tests.identity.kit import particulars, person, records
from tests.identity.service_kit import Service, application
from tests.issuance.kit import portrait


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("portraits") / "anju"
    toml, _ = loopback_toml()
    create_installation(directory, toml.replace("photographs = false", "photographs = true"))
    with open_installation(directory) as installation:
        server = Server(installation)
        server.start()
        yield Service(directory, installation, server)
        server.stop()


def shown_photo(service: Service, qr_text: str) -> bytes | None:
    trust = TrustStore.load(service.installation.issuer.publish_trust().bundle)
    verdict = verify(qr_text, trust, datetime.now(UTC))
    assert verdict.valid
    return verdict.photo.data if verdict.photo else None


def test_portrait_is_on_the_permit_and_only_its_reduction_is_kept(service: Service) -> None:
    with service.terminal("east", "counter-1"):
        pass
    home = service.directory / "terminals" / "counter-1"
    with TerminalClient(home) as client:
        face = portrait()
        answer = client.enrol(person(1, datetime.now(UTC)), records(1), portrait=face)
        plain = client.enrol(person(2, datetime.now(UTC)), records(2))
    made = photo.make(face).data
    assert answer.permit is not None
    assert plain.permit is not None
    assert shown_photo(service, answer.permit.qr_text) == made
    assert shown_photo(service, plain.permit.qr_text) is None
    assert answer.registrant_id is not None
    with service.installation.database.read() as tx:
        kept = tx.people.registrant(answer.registrant_id).particulars
    assert kept is not None
    assert kept.photo == made
    # Sealed like everything about a person; and the portrait itself is nowhere.
    for path in service.directory.glob("register.sqlite3*"):
        content = path.read_bytes()
        assert made[12:60] not in content
        assert made[12:60].hex().encode() not in content
        assert face[200:240] not in content


def test_what_is_no_portrait_is_refused_and_nothing_is_kept(service: Service) -> None:
    with service.terminal("east", "counter-2") as terminal:
        stub = enrolment_pb2_grpc.EnrolmentServiceStub(terminal.channel)
        request = application(3)
        for data in (b"junk", portrait(900, 300), portrait()[:900]):
            request.portrait = data
            with pytest.raises(RemoteError, match="INVALID_ARGUMENT/PORTRAIT_INVALID"):
                terminal.call(stub.Enrol, request)
        request.portrait = b""
        assert terminal.call(stub.Enrol, request).application.registrant_id


def test_register_without_photographs_ignores_a_portrait(tmp_path: Path) -> None:
    made = create_installation(tmp_path / "anju")
    rules = json.loads((made.directory / "authority.json").read_bytes())
    assert all("photo" not in kind["carries"] for kind in rules["kinds"])


def test_photo_is_no_part_of_who_somebody_is() -> None:
    plain = particulars(1)
    with_photo = replace(plain, photo=b"RIFF")
    assert with_photo == plain
    assert _unpack(_pack(with_photo)).photo == b"RIFF"
    assert "RIFF" not in repr(with_photo)
    before = json.loads(_pack(plain))
    del before["photo"]
    assert _unpack(json.dumps(before).encode()) == plain
