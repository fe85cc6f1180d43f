"""anju.v1.terminals messages <-> this package's types."""

from __future__ import annotations

import ipaddress
from datetime import datetime
from urllib.parse import unquote

from google.protobuf.timestamp_pb2 import Timestamp

from anju.v1 import terminals_pb2
from devices import types


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
    return message


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
