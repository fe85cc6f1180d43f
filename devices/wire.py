"""anju.v1.terminals and operators messages <-> this package's types."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from datetime import UTC, datetime
from urllib.parse import unquote

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from anju.v1 import operators_pb2, terminals_pb2
from devices import types
from devices.errors import ArgumentInvalidError, ProofInvalidError

SESSION_METADATA = "anju-session"
CAPTURE_PROOF_METADATA = "anju-capture-proof-bin"


def timestamp(at: datetime) -> Timestamp:
    """An aware instant as a Timestamp."""
    message = Timestamp()
    message.FromDatetime(at)
    return message


def peer_address(peer: str) -> str:
    """The network address in gRPC's ``ServicerContext.peer()``, without the port.

    An IPv6 caller is its /64 network, because one subscriber owns all of it; anything else that is
    no IP address (a Unix socket) stays as it is.
    """
    scheme, _, rest = peer.partition(":")
    if scheme not in ("ipv4", "ipv6"):
        return peer
    host = unquote(rest).rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return peer
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


def terminal(value: types.Terminal) -> terminals_pb2.Terminal:
    message = terminals_pb2.Terminal(
        terminal_id=value.terminal_id,
        station_id=value.station_id,
        state=terminals_pb2.TerminalState.ValueType(value.state),
    )
    if value.certificate_not_after is not None:
        message.certificate_not_after.CopyFrom(timestamp(value.certificate_not_after))
    if value.last_contact is not None:
        message.last_contact.CopyFrom(timestamp(value.last_contact))
    if value.serials:
        message.certificate_serial = value.serials[-1]
    if value.equipment is not None:
        message.equipment.CopyFrom(equipment_message(value.equipment))
    return message


def equipment_message(value: types.Equipment) -> terminals_pb2.Equipment:
    return terminals_pb2.Equipment(
        software_version=value.software_version,
        sensor_vendor=value.sensor_vendor,
        sensor_model=value.sensor_model,
        sensor_version=value.sensor_version,
        template_formats=value.template_formats,
    )


def equipment(message: terminals_pb2.Equipment) -> types.Equipment:
    return types.Equipment(
        software_version=message.software_version,
        sensor_vendor=message.sensor_vendor,
        sensor_model=message.sensor_model,
        sensor_version=message.sensor_version,
        template_formats=tuple(message.template_formats),
    )


def token_response(value: types.IssuedToken) -> terminals_pb2.CreateProvisioningTokenResponse:
    return terminals_pb2.CreateProvisioningTokenResponse(
        token=value.token, expires_at=timestamp(value.expires_at)
    )


def provision_response(value: types.Provisioned) -> terminals_pb2.ProvisionResponse:
    return terminals_pb2.ProvisionResponse(
        certificate=value.certificate,
        ca_certificate=value.ca_certificate,
        terminal_id=value.terminal_id,
        station_id=value.station_id,
    )


def list_response(value: types.TerminalPage) -> terminals_pb2.ListTerminalsResponse:
    return terminals_pb2.ListTerminalsResponse(
        terminals=[terminal(one) for one in value.terminals], next_page_token=value.next_after
    )


def operator(value: types.Operator) -> operators_pb2.Operator:
    message = operators_pb2.Operator(
        operator_id=value.operator_id,
        roles=[operators_pb2.OperatorRole.ValueType(role) for role in sorted(value.roles)],
        has_password=bool(value.password),
        has_login_key=bool(value.login_key),
        revocation_reason=value.revocation_reason,
    )
    if value.password_change_by is not None:
        message.password_change_by.CopyFrom(timestamp(value.password_change_by))
    if value.revoked_at is not None:
        message.revoked_at.CopyFrom(timestamp(value.revoked_at))
    return message


def roles(numbers: Iterable[int]) -> frozenset[types.OperatorRole]:
    """Raises ArgumentInvalidError for a number that is no role."""
    try:
        return frozenset(types.OperatorRole(number) for number in numbers)
    except ValueError as error:
        known = ", ".join(role.name for role in types.OperatorRole)
        raise ArgumentInvalidError(f"an operator's roles are {known}") from error


def operators_response(value: types.OperatorPage) -> operators_pb2.ListOperatorsResponse:
    return operators_pb2.ListOperatorsResponse(
        operators=[operator(one) for one in value.operators], next_page_token=value.next_after
    )


def login_response(value: types.OpenedSession) -> operators_pb2.LogInResponse:
    return operators_pb2.LogInResponse(
        session_id=value.session.session_id,
        token=value.token,
        opened_at=timestamp(value.session.opened_at),
        expires_at=timestamp(value.session.expires_at),
        idle_timeout_s=int(value.idle_timeout.total_seconds()),
    )


def capture_proof(packed: bytes) -> types.CaptureProof:
    """What travels as ``anju-capture-proof-bin``.

    Raises:
        ProofInvalidError: it is no such message.
    """
    try:
        message = operators_pb2.CaptureProof.FromString(packed)
        signed_at = message.signed_at.ToDatetime(tzinfo=UTC)
    except (DecodeError, ValueError, OverflowError) as error:
        raise ProofInvalidError("the capture proof is unreadable") from error
    return types.CaptureProof(message.session_id, signed_at, message.signature)


def packed_capture_proof(value: types.CaptureProof) -> bytes:
    return operators_pb2.CaptureProof(
        session_id=value.session_id,
        signed_at=timestamp(value.signed_at),
        signature=value.signature,
    ).SerializeToString()
