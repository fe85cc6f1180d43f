"""The texts that operators' and sessions' keys sign; see operators.proto, which vendors read.

Plain lines instead of a binary layout: in any language they are one format string.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def login_text(operator_id: str, terminal_id: str, challenge: bytes, session_key: bytes) -> bytes:
    """What an operator's login key signs."""
    digest = hashlib.sha256(session_key).hexdigest()
    lines = ("anju operator login v1", operator_id, terminal_id, challenge.hex(), digest)
    return "\n".join(lines).encode()


def capture_text(session_id: str, method: str, signed_at: datetime, request: bytes) -> bytes:
    """What a session's key signs for one request.

    Args:
        method: e.g. ``EnrolmentService.Enrol``.
        request: its bytes as they are sent.
    """
    microseconds = (signed_at - _EPOCH) // timedelta(microseconds=1)
    digest = hashlib.sha256(request).hexdigest()
    lines = ("anju capture proof v1", session_id, method, str(microseconds), digest)
    return "\n".join(lines).encode()
