"""What every interceptor asks of a call that arrives: is it ours, its name, whose connection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import grpc

from devices.certificates import principal_from_auth_context
from devices.types import Principal

CONTRACT = "/anju.v1."  # health and reflection look after themselves


def method_name(path: str) -> str:
    """``EnrolmentService.Enrol`` of ``/anju.v1.EnrolmentService/Enrol``."""
    return path.removeprefix(CONTRACT).replace("/", ".")


def certified(context: grpc.ServicerContext) -> Principal:
    """Whom the client certificate of the connection names, who may be revoked since.

    Raises:
        devices.errors.CertificateInvalidError: there is none, as on the provisioning port, or it is
            not of the profile.
    """
    # The stubs say bytes, gRPC hands out tuples of bytes.
    return principal_from_auth_context(
        cast("Mapping[str, Iterable[bytes]]", context.auth_context())
    )
