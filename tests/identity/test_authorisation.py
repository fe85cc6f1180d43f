"""Capacity x method, cell by cell, written down a second time: a slip in one table shows.

First the table by itself, then every cell of it against a running server.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass

from devices.authority import OPERATOR_LIFETIME
from devices.errors import OperatorRequiredError
from devices.terminal import connect
from devices.types import OperatorRole, Principal, Role
from identity.app import SERVICES
from identity.authorisation import (
    ANONYMOUS_METHODS,
    METHODS,
    Capacity,
    capacities,
    require_allowed,
)
from identity.errors import PermissionDeniedError
from identity.setup import add_operator
from tests.identity.service_kit import Service, refusal_of, running, working_at

COLUMNS = (
    Capacity.ANONYMOUS,
    Capacity.TERMINAL,
    Capacity.CAPTURE,
    Capacity.STATION,
    Capacity.ADJUDICATOR,
    Capacity.ADMINISTRATOR,
    Capacity.DEPARTMENT,
)
# In the order of COLUMNS; x is allowed.
CELLS = {
    "TerminalService.CreateProvisioningToken": ".....x.",
    "TerminalService.Provision": "x......",
    "TerminalService.RenewCertificate": ".xx....",
    "TerminalService.Heartbeat": ".xx....",
    "TerminalService.ListTerminals": ".....x.",
    "TerminalService.ReprovisionTerminal": ".....x.",
    "TerminalService.RevokeTerminal": ".....x.",
    "OperatorService.EnrolOperator": ".....x.",
    "OperatorService.ListOperators": ".....x.",
    "OperatorService.RevokeOperator": ".....x.",
    "OperatorService.GetLoginChallenge": ".xx....",
    "OperatorService.LogIn": ".xx....",
    "OperatorService.LogOut": ".xx....",
    "EnrolmentService.Enrol": "..x....",
    "EnrolmentService.GetApplication": ".xxxx..",
    "EnrolmentService.Upload": ".xx....",
    "EnrolmentService.GetUpload": ".xx....",
    "MatchingService.Identify": "....x..",
    "MatchingService.Verify": "...xx..",
    "RegisterService.GetRegistrant": "...xx..",
    "RegisterService.ListDisclosures": "...x.x.",
    "RegisterService.ChangeResidence": "...x...",
    "RegisterService.RecordDeparture": "...x...",
    "RegisterService.EraseRegistrant": ".....x.",
    "PermitService.GetPermit": "...xx..",
    "PermitService.IssuePermit": "...x...",
    "PermitService.RenderPermitCard": "...x...",
    "PermitService.ChangePermitStatus": "...xx..",
    "AdjudicationService.ListCases": "....x..",
    "AdjudicationService.GetCase": "....x..",
    "AdjudicationService.DecideCase": "....x..",
    "AdjudicationService.AppealCase": "...xx..",
    "TrustService.GetTrustBundle": "xxxxxxx",
    "AuditService.ListEntries": ".....x.",
    "AuditService.VerifyChain": ".....x.",
}
EVERY_ROLE = frozenset(OperatorRole)
TERMINAL = Principal(Role.TERMINAL, "hall-1", "east-gate")
CALLERS = {
    Capacity.TERMINAL: TERMINAL,
    Capacity.CAPTURE: Principal(
        Role.TERMINAL, "hall-1", "east-gate", operator_id="anna", roles=EVERY_ROLE
    ),
    Capacity.STATION: Principal(Role.OPERATOR, "anna", roles=frozenset({OperatorRole.STATION})),
    Capacity.ADJUDICATOR: Principal(
        Role.OPERATOR, "bo", roles=frozenset({OperatorRole.ADJUDICATOR})
    ),
    Capacity.ADMINISTRATOR: Principal(
        Role.OPERATOR, "chen", roles=frozenset({OperatorRole.ADMINISTRATOR})
    ),
    Capacity.DEPARTMENT: Principal(Role.DEPARTMENT, "education"),
}


def methods() -> dict[str, Any]:
    return {
        f"{service.name}.{method.name}": method
        for module in SERVICES
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


def allowed(principal: Principal, method: str) -> bool:
    try:
        require_allowed(principal, method)
    except (PermissionDeniedError, OperatorRequiredError):
        return False
    return True


def test_every_capacity_is_a_column_here() -> None:
    assert set(COLUMNS) == set(Capacity)
    assert {len(cells) for cells in CELLS.values()} == {len(COLUMNS)}
    assert {one: {one} for one in CALLERS} == {
        one: capacities(caller) for one, caller in CALLERS.items()
    }


def test_every_method_of_every_service_is_decided_about() -> None:
    assert methods().keys() == CELLS.keys() == METHODS.keys()


@pytest.mark.parametrize("method", CELLS)
def test_each_cell_of_the_table(method: str) -> None:
    told = "".join("x" if one in METHODS[method] else "." for one in COLUMNS)
    assert told == CELLS[method]
    for capacity, caller in CALLERS.items():
        assert allowed(caller, method) is (CELLS[method][COLUMNS.index(capacity)] == "x")


def test_without_a_certificate_one_can_be_provisioned_and_read_public_trust_material() -> None:
    assert {"TerminalService.Provision", "TrustService.GetTrustBundle"} == ANONYMOUS_METHODS


@pytest.mark.parametrize("capacity", CALLERS)
@pytest.mark.parametrize("method", ["", "EnrolmentService", "EnrolmentService.enrol", "X.Y"])
def test_what_the_table_does_not_know_is_refused(capacity: Capacity, method: str) -> None:
    assert not allowed(CALLERS[capacity], method)


def test_somebody_at_a_terminal_who_is_no_station_operator_captures_nothing() -> None:
    other = Principal(
        Role.TERMINAL,
        "hall-1",
        "east-gate",
        operator_id="bo",
        roles=EVERY_ROLE - {OperatorRole.STATION},
    )
    assert not allowed(other, "EnrolmentService.Enrol")
    with pytest.raises(OperatorRequiredError, match="log in at this terminal"):
        require_allowed(TERMINAL, "EnrolmentService.Enrol")


# -- against the running server --


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("cells") / "anju") as started:
        yield started


@pytest.fixture(scope="module")
def channels(service: Service) -> Iterator[dict[Capacity, grpc.Channel]]:
    """A channel for each column. Whoever captures has every role: a terminal narrows it down."""
    directory = service.directory
    homes = {
        role: add_operator(directory, f"one-{role.name.lower()}", [role], timedelta(days=1))
        for role in OperatorRole
    }
    service.terminal("east-gate", "hall-1").close()
    department = directory / "education"
    service.installation.authority.write_client(
        department, Role.DEPARTMENT, "education", service.server.address, OPERATOR_LIFETIME
    )
    hall = directory / "terminals" / "hall-1"
    trusted = grpc.ssl_channel_credentials(service.installation.authority.server.ca_pem)
    name = [("grpc.ssl_target_name_override", "localhost")]
    with ExitStack() as stack:
        connections = {
            Capacity.TERMINAL: connect(hall),
            Capacity.CAPTURE: working_at(hall),
            Capacity.STATION: connect(homes[OperatorRole.STATION]),
            Capacity.ADJUDICATOR: connect(homes[OperatorRole.ADJUDICATOR]),
            Capacity.ADMINISTRATOR: connect(homes[OperatorRole.ADMINISTRATOR]),
            Capacity.DEPARTMENT: connect(department),
        }
        anonymous = grpc.secure_channel(service.server.provisioning_address, trusted, options=name)
        yield {
            Capacity.ANONYMOUS: stack.enter_context(anonymous),
            **{one: stack.enter_context(c).channel for one, c in connections.items()},
        }


def told(channel: grpc.Channel, method: Any) -> tuple[grpc.StatusCode, str]:
    """Status and reason for the method with an empty request."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    request = GetMessageClass(method.input_type)()
    kind: Any = channel.stream_unary if method.client_streaming else channel.unary_unary
    call = kind(
        path,
        lambda message: message.SerializeToString(),
        GetMessageClass(method.output_type).FromString,
    )
    try:
        call(iter([request]) if method.client_streaming else request, timeout=30)
    except grpc.RpcError as error:
        refused = refusal_of(error)
        return refused.code, refused.reason
    return grpc.StatusCode.OK, ""


@pytest.mark.parametrize("capacity", COLUMNS)
def test_each_cell_against_the_server(
    channels: dict[Capacity, grpc.Channel], capacity: Capacity
) -> None:
    denied = {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED}
    refused = {grpc.StatusCode.PERMISSION_DENIED}
    if capacity is Capacity.ANONYMOUS:  # most services are not on that port at all
        refused = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED}
    wrong = {}
    for name, method in methods().items():
        status, reason = told(channels[capacity], method)
        if CELLS[name][COLUMNS.index(capacity)] == ".":
            right = status in refused
        else:  # heard: what Provision says of an empty token is about the token
            right = status not in denied or reason == "TOKEN_INVALID"
        if not right:
            wrong[name] = status
    assert not wrong
