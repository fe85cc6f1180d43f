"""Who may call what: one table, role x method. What is not in it is refused."""

from __future__ import annotations

from devices.types import Principal, Role
from identity.errors import PermissionDeniedError

TERMINAL = frozenset({Role.TERMINAL})
OPERATOR = frozenset({Role.OPERATOR})
CAPTURE = TERMINAL | OPERATOR
EVERYONE = frozenset(Role)

METHODS: dict[str, frozenset[Role]] = {
    "TerminalService.CreateProvisioningToken": OPERATOR,
    "TerminalService.RenewCertificate": TERMINAL,
    "TerminalService.ListTerminals": OPERATOR,
    "TerminalService.RevokeTerminal": OPERATOR,
    "EnrolmentService.Enrol": TERMINAL,
    "EnrolmentService.GetApplication": CAPTURE,
    "EnrolmentService.Upload": TERMINAL,
    "EnrolmentService.GetUpload": TERMINAL,
    "MatchingService.Identify": OPERATOR,
    "MatchingService.Verify": OPERATOR,
    "RegisterService.GetRegistrant": OPERATOR,
    "RegisterService.ListDisclosures": OPERATOR,
    "RegisterService.ChangeResidence": OPERATOR,
    "RegisterService.RecordDeparture": OPERATOR,
    "RegisterService.EraseRegistrant": OPERATOR,
    "PermitService.GetPermit": OPERATOR,
    "PermitService.IssuePermit": OPERATOR,
    "PermitService.RenderPermitCard": OPERATOR,
    "PermitService.ChangePermitStatus": OPERATOR,
    "AdjudicationService.ListCases": OPERATOR,
    "AdjudicationService.GetCase": OPERATOR,
    "AdjudicationService.DecideCase": OPERATOR,
    "AdjudicationService.AppealCase": OPERATOR,
    "TrustService.GetTrustBundle": EVERYONE,
    "AuditService.ListEntries": OPERATOR,
    "AuditService.VerifyChain": OPERATOR,
}

# Served on the provisioning port, where callers have no certificate.
ANONYMOUS_METHODS = frozenset({"TerminalService.Provision", "TrustService.GetTrustBundle"})


def require_allowed(principal: Principal, method: str) -> None:
    """Raises PermissionDeniedError (``METHOD_NOT_ALLOWED``) unless the table says yes."""
    if principal.role not in METHODS.get(method, frozenset()):
        raise PermissionDeniedError(
            "METHOD_NOT_ALLOWED", f"{principal.role.value} certificates may not call {method}"
        )
