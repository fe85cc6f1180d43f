"""Who may call what: one table, capacity x method. What is not in it is refused.

A capacity is in what way somebody calls: by the certificate alone, as an operator with a
certificate of their own and one of the roles, or as an operator who is logged in at a terminal.
Whatever roles that operator has, over a terminal's connection they capture and nothing else.
"""

from __future__ import annotations

from enum import Enum

from devices.errors import OperatorRequiredError
from devices.types import OperatorRole, Principal, Role
from identity.errors import PermissionDeniedError


class Capacity(Enum):
    """The table's columns; the values are for messages."""

    ANONYMOUS = "callers without a certificate"
    TERMINAL = "terminals"
    CAPTURE = "station operators logged in at a terminal"
    STATION = "station operators"
    ADJUDICATOR = "adjudicators"
    ADMINISTRATOR = "administrators"
    DEPARTMENT = "departments"


ANONYMOUS = frozenset({Capacity.ANONYMOUS})
TERMINAL = frozenset({Capacity.TERMINAL, Capacity.CAPTURE})
CAPTURE = frozenset({Capacity.CAPTURE})
STATION = frozenset({Capacity.STATION})
ADJUDICATOR = frozenset({Capacity.ADJUDICATOR})
ADMINISTRATOR = frozenset({Capacity.ADMINISTRATOR})
CASEWORK = STATION | ADJUDICATOR
EVERYONE = frozenset(Capacity)

METHODS: dict[str, frozenset[Capacity]] = {
    "TerminalService.CreateProvisioningToken": ADMINISTRATOR,
    "TerminalService.Provision": ANONYMOUS,
    "TerminalService.RenewCertificate": TERMINAL,
    "TerminalService.Heartbeat": TERMINAL,
    "TerminalService.ListTerminals": ADMINISTRATOR,
    "TerminalService.ReprovisionTerminal": ADMINISTRATOR,
    "TerminalService.RevokeTerminal": ADMINISTRATOR,
    "OperatorService.EnrolOperator": ADMINISTRATOR,
    "OperatorService.ListOperators": ADMINISTRATOR,
    "OperatorService.RevokeOperator": ADMINISTRATOR,
    "OperatorService.GetLoginChallenge": TERMINAL,
    "OperatorService.LogIn": TERMINAL,
    "OperatorService.LogOut": TERMINAL,
    "EnrolmentService.Enrol": CAPTURE,
    "EnrolmentService.GetApplication": TERMINAL | CASEWORK,
    # Uploaded bytes are nothing until an Enrol names them, and that an operator has signed.
    "EnrolmentService.Upload": TERMINAL,
    "EnrolmentService.GetUpload": TERMINAL,
    "MatchingService.Identify": ADJUDICATOR,
    "MatchingService.Verify": CASEWORK,
    "RegisterService.GetRegistrant": CASEWORK,
    "RegisterService.ListDisclosures": STATION | ADMINISTRATOR,
    "RegisterService.ChangeResidence": STATION,
    "RegisterService.RecordDeparture": STATION,
    "RegisterService.EraseRegistrant": ADMINISTRATOR,
    "PermitService.GetPermit": CASEWORK,
    "PermitService.IssuePermit": STATION,
    "PermitService.RenderPermitCard": STATION,
    "PermitService.ChangePermitStatus": CASEWORK,
    "AdjudicationService.ListCases": ADJUDICATOR,
    "AdjudicationService.GetCase": ADJUDICATOR,
    "AdjudicationService.DecideCase": ADJUDICATOR,
    "AdjudicationService.AppealCase": CASEWORK,
    "TrustService.GetTrustBundle": EVERYONE,
    "AuditService.ListEntries": ADMINISTRATOR,
    "AuditService.VerifyChain": ADMINISTRATOR,
}

# Served on the provisioning port, where callers have no certificate.
ANONYMOUS_METHODS = frozenset(
    method for method, who in METHODS.items() if Capacity.ANONYMOUS in who
)

_OF_ROLE = {
    OperatorRole.STATION: Capacity.STATION,
    OperatorRole.ADJUDICATOR: Capacity.ADJUDICATOR,
    OperatorRole.ADMINISTRATOR: Capacity.ADMINISTRATOR,
}


def capacities(principal: Principal) -> frozenset[Capacity]:
    """In what ways somebody calls who has shown all that :class:`Principal` says."""
    if principal.role is Role.DEPARTMENT:
        return frozenset({Capacity.DEPARTMENT})
    if principal.role is Role.OPERATOR:
        return frozenset(_OF_ROLE[role] for role in principal.roles)
    if OperatorRole.STATION in principal.roles:
        return CAPTURE
    return frozenset({Capacity.TERMINAL})


def operator_needed(principal: Principal, method: str) -> bool:
    """Whether the terminal may call this only with an operator logged in."""
    allowed = METHODS.get(method, frozenset())
    return principal.role is Role.TERMINAL and allowed >= CAPTURE and not allowed >= TERMINAL


def require_allowed(principal: Principal, method: str) -> None:
    """Refuse what the table does not allow.

    Raises:
        OperatorRequiredError: it would be allowed with an operator logged in.
        PermissionDeniedError: METHOD_NOT_ALLOWED.
    """
    allowed = METHODS.get(method, frozenset())
    if not capacities(principal).isdisjoint(allowed):
        return
    if operator_needed(principal, method) and not principal.operator_id:
        raise OperatorRequiredError(
            f"{method} needs an operator: log in at this terminal (anju terminal login), then "
            "call again"
        )
    caller = "this operator" if principal.roles else f"{principal.role.value} certificates"
    listed = ", ".join(one.value for one in Capacity if one in allowed) or "nobody"
    raise PermissionDeniedError(
        "METHOD_NOT_ALLOWED", f"{caller} may not call {method}, which is for {listed}"
    )
