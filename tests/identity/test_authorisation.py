"""Role x method, cell by cell, written down a second time: a slip in one table shows."""

from __future__ import annotations

import pytest

from devices.types import Principal, Role
from identity.app import SERVICES
from identity.authorisation import ANONYMOUS_METHODS, METHODS, require_allowed
from identity.errors import PermissionDeniedError

#                                           terminal  operator  department
ALLOWED: dict[str, tuple[bool, bool, bool]] = {
    "TerminalService.CreateProvisioningToken": (False, True, False),
    "TerminalService.Provision": (False, False, False),
    "TerminalService.RenewCertificate": (True, False, False),
    "TerminalService.ListTerminals": (False, True, False),
    "TerminalService.RevokeTerminal": (False, True, False),
    "EnrolmentService.Enrol": (True, False, False),
    "EnrolmentService.GetApplication": (True, True, False),
    "EnrolmentService.Upload": (True, False, False),
    "EnrolmentService.GetUpload": (True, False, False),
    "MatchingService.Identify": (False, True, False),
    "MatchingService.Verify": (False, True, False),
    "RegisterService.GetRegistrant": (False, True, False),
    "RegisterService.ListDisclosures": (False, True, False),
    "RegisterService.ChangeResidence": (False, True, False),
    "RegisterService.RecordDeparture": (False, True, False),
    "RegisterService.EraseRegistrant": (False, True, False),
    "PermitService.GetPermit": (False, True, False),
    "PermitService.IssuePermit": (False, True, False),
    "PermitService.RenderPermitCard": (False, True, False),
    "PermitService.ChangePermitStatus": (False, True, False),
    "AdjudicationService.ListCases": (False, True, False),
    "AdjudicationService.GetCase": (False, True, False),
    "AdjudicationService.DecideCase": (False, True, False),
    "AdjudicationService.AppealCase": (False, True, False),
    "TrustService.GetTrustBundle": (True, True, True),
    "AuditService.ListEntries": (False, True, False),
    "AuditService.VerifyChain": (False, True, False),
}
ROLES = (Role.TERMINAL, Role.OPERATOR, Role.DEPARTMENT)


def served() -> set[str]:
    return {
        f"{service.name}.{method.name}"
        for module in SERVICES
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


def allowed(role: Role, method: str) -> bool:
    try:
        require_allowed(Principal(role, "somebody"), method)
    except PermissionDeniedError as error:
        return not (error.reason == "METHOD_NOT_ALLOWED" and role.value in str(error))
    return True


def test_every_role_is_a_column_here() -> None:
    assert set(ROLES) == set(Role)


def test_every_method_of_every_service_is_decided_about() -> None:
    assert served() == ALLOWED.keys()
    assert served() == METHODS.keys() | ANONYMOUS_METHODS


@pytest.mark.parametrize("method", ALLOWED)
def test_each_cell_of_the_table(method: str) -> None:
    assert tuple(allowed(role, method) for role in ROLES) == ALLOWED[method]


def test_without_a_certificate_one_can_be_provisioned_and_read_public_trust_material() -> None:
    assert {"TerminalService.Provision", "TrustService.GetTrustBundle"} == ANONYMOUS_METHODS


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("method", ["", "EnrolmentService", "EnrolmentService.enrol", "X.Y"])
def test_what_the_table_does_not_know_is_refused(role: Role, method: str) -> None:
    assert not allowed(role, method)
