"""The contract: its committed stubs are what ``proto/`` generates, and it keeps its own rules."""

from __future__ import annotations

import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from anju.v1 import (
    adjudication_pb2,
    audit_pb2,
    common_pb2,
    enrolment_pb2,
    matching_pb2,
    operators_pb2,
    permits_pb2,
    register_pb2,
    terminals_pb2,
    trust_pb2,
)

PROTO = Path(__file__).resolve().parents[1] / "proto"
FILES = (
    adjudication_pb2,
    audit_pb2,
    common_pb2,
    enrolment_pb2,
    matching_pb2,
    operators_pb2,
    permits_pb2,
    register_pb2,
    terminals_pb2,
    trust_pb2,
)

# Everything not listed here changes state and needs an idempotency key.
READ_ONLY = {
    "AdjudicationService.ListCases",
    "AdjudicationService.GetCase",
    "AuditService.ListEntries",
    "AuditService.VerifyChain",
    "EnrolmentService.GetApplication",
    "EnrolmentService.GetUpload",
    "MatchingService.Identify",
    "MatchingService.Verify",
    "OperatorService.GetLoginChallenge",
    "OperatorService.ListOperators",
    "PermitService.GetPermit",
    "PermitService.RenderPermitCard",
    "RegisterService.GetRegistrant",
    "RegisterService.ListDisclosures",
    "TerminalService.ListTerminals",
    "TrustService.GetTrustBundle",
}
# What names the change: a one-time token with its signing request; the digest of what is uploaded;
# the token of the session that ends. A report is the same however often it comes, and of logins at
# a terminal the last one counts.
KEYED_OTHERWISE = {
    "TerminalService.Provision",
    "TerminalService.Heartbeat",
    "EnrolmentService.Upload",
    "OperatorService.LogIn",
    "OperatorService.LogOut",
}


def methods() -> dict[str, MethodDescriptor]:
    return {
        f"{service.name}.{method.name}": method
        for module in FILES
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


def test_stubs_are_what_the_generator_makes_today(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, str(PROTO / "generate.py"), "--out", str(tmp_path)],
        check=True,
        capture_output=True,
    )
    committed = PROTO / "anju" / "v1"
    made = {path.name: path for path in (tmp_path / "anju" / "v1").iterdir()}
    kept = {path.name for path in committed.glob("*_pb2*")}
    assert kept == set(made)
    different = [
        name for name in sorted(made) if made[name].read_bytes() != (committed / name).read_bytes()
    ]
    assert not different, "run `make protos`"


def test_every_proto_file_is_looked_at_here() -> None:
    names = {path.name for path in (PROTO / "anju" / "v1").glob("*.proto")}
    assert names == {module.DESCRIPTOR.name.rpartition("/")[2] for module in FILES}


def test_every_call_that_changes_state_carries_an_idempotency_key_first() -> None:
    for name, method in methods().items():
        key = method.input_type.fields_by_number.get(1)
        keyed = key is not None and key.name == "idempotency_key" and key.type == key.TYPE_STRING
        assert keyed is (name not in READ_ONLY | KEYED_OTHERWISE), name


def test_the_lists_of_exceptions_name_methods_that_exist() -> None:
    assert methods().keys() >= READ_ONLY | KEYED_OTHERWISE


def test_each_call_has_request_and_response_messages_of_its_own() -> None:
    for name, method in methods().items():
        call = name.partition(".")[2]
        assert method.input_type.name == f"{call}Request", name
        assert method.output_type.name == f"{call}Response", name


def test_enums_start_at_unspecified() -> None:
    for module in FILES:
        messages = module.DESCRIPTOR.message_types_by_name.values()
        nested = [enum for message in messages for enum in message.enum_types]
        for enum in [*module.DESCRIPTOR.enum_types_by_name.values(), *nested]:
            assert enum.values_by_number[0].name.endswith("_UNSPECIFIED"), enum.full_name


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[FileDescriptorProto]:
    out = tmp_path_factory.mktemp("protos") / "set.pb"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{PROTO}",
            f"-I{resources.files('grpc_tools') / '_proto'}",
            "--include_source_info",
            f"--descriptor_set_out={out}",
            *sorted(str(path) for path in (PROTO / "anju" / "v1").glob("*.proto")),
        ],
        check=True,
        capture_output=True,
    )
    return list(FileDescriptorSet.FromString(out.read_bytes()).file)


def test_every_call_says_what_it_does(sources: list[FileDescriptorProto]) -> None:
    silent = []
    for file in sources:
        comments = {
            tuple(place.path): place.leading_comments.strip()
            for place in file.source_code_info.location
        }
        for s, service in enumerate(file.service):
            silent += [
                f"{service.name}.{method.name}"
                for m, method in enumerate(service.method)
                if not comments.get((6, s, 2, m))
            ]
    assert not silent
