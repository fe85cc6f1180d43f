"""What can go wrong in ``devices``, split by what the caller would do about it.

Each error has a ``reason``: the stable token that travels as google.rpc.ErrorInfo.reason. No
message ever holds a token, a key or personal data.
"""

from __future__ import annotations


class DevicesError(Exception):
    """Base of every error this package raises on purpose."""

    reason = "DEVICES_ERROR"


class TokenInvalidError(DevicesError):
    """The provisioning token is mistyped, unknown, used or expired: correct it, or ask for another.

    The register answers the last three alike, so that nobody learns which tokens exist.
    """

    reason = "TOKEN_INVALID"


class CsrInvalidError(DevicesError):
    """The certificate signing request cannot be accepted; the token it came with is still good."""

    reason = "CSR_INVALID"


class TooManyAttemptsError(DevicesError):
    """Too many failed attempts to provision, or to log in: wait.

    Attributes:
        retry_after_s: when the next attempt will be heard, in seconds.
    """

    reason = "TOO_MANY_ATTEMPTS"

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"too many failed attempts; try again in {max(1, round(retry_after_s))} s")
        self.retry_after_s = retry_after_s


class TerminalUnknownError(DevicesError):
    """No terminal is registered under that id."""

    reason = "TERMINAL_UNKNOWN"

    def __init__(self, terminal_id: str) -> None:
        super().__init__(f"no terminal is registered as {terminal_id[:64]!r}")
        self.terminal_id = terminal_id


class TerminalExistsError(DevicesError):
    """The terminal is registered at another station: choose another id, or that station."""

    reason = "TERMINAL_EXISTS"

    def __init__(self, terminal_id: str, station_id: str) -> None:
        super().__init__(
            f"terminal {terminal_id!r} is registered at station {station_id!r}; "
            "choose another terminal id, or that station"
        )
        self.terminal_id = terminal_id
        self.station_id = station_id


class StationInvalidError(DevicesError):
    """A station, terminal or operator id is not 2 to 32 of a-z, 0-9 and ``-``."""

    reason = "STATION_INVALID"


class ArgumentInvalidError(DevicesError):
    """Another value of the request is out of its range: fix the request."""

    reason = "ARGUMENT_INVALID"


class TerminalBusyError(DevicesError):
    """The terminal's registration kept changing under this call: try again, nothing was changed."""

    reason = "TERMINAL_BUSY"


class CertificateInvalidError(DevicesError):
    """The client certificate names no caller, or not one that may do this, or has expired."""

    reason = "CERTIFICATE_INVALID"


class CertificateRevokedError(DevicesError):
    """The certificate is no longer accepted: revoked, or replaced by a later one."""

    reason = "CERTIFICATE_REVOKED"


class OperatorUnknownError(DevicesError):
    """No operator is registered under that id."""

    reason = "OPERATOR_UNKNOWN"

    def __init__(self, operator_id: str) -> None:
        super().__init__(f"no operator is registered as {operator_id[:64]!r}")


class OperatorBusyError(DevicesError):
    """The operator's record kept changing under this call: try again, nothing was changed."""

    reason = "OPERATOR_BUSY"


class OperatorRevokedError(DevicesError):
    """The operator named by the certificate is revoked, or was never registered."""

    reason = "OPERATOR_REVOKED"


class OperatorRequiredError(DevicesError):
    """The terminal is known, but not who works at it: somebody must log in."""

    reason = "OPERATOR_REQUIRED"


class LoginRefusedError(DevicesError):
    """No such operator, revoked, or the wrong password or key: which one is not told.

    Attributes:
        subject_id: whom the caller claimed to be.
    """

    reason = "LOGIN_REFUSED"

    def __init__(self, operator_id: str) -> None:
        super().__init__(
            "operator id, password or key is wrong, or the operator may not log in any more; "
            "try again, or ask an administrator"
        )
        self.subject_id = operator_id


class PasswordChangeRequiredError(DevicesError):
    """The password is right and must be replaced by one that only the operator knows."""

    reason = "PASSWORD_CHANGE_REQUIRED"


class SessionInvalidError(DevicesError):
    """No session of this terminal has that token or id: log in again."""

    reason = "SESSION_INVALID"


class SessionExpiredError(SessionInvalidError):
    """The session has ended: log in again."""

    reason = "SESSION_EXPIRED"


class SessionRevokedError(SessionInvalidError):
    """The operator's or the terminal's access was withdrawn since: another operator must answer for
    what was captured, and hand it in again."""

    reason = "SESSION_REVOKED"


class ProofInvalidError(SessionInvalidError):
    """The capture proof does not fit the request, or its session: have it handed in again."""

    reason = "PROOF_INVALID"


class AuthorityError(DevicesError):
    """The authority's files are missing, damaged, readable by others, or there already."""

    reason = "AUTHORITY_UNUSABLE"


class CredentialsError(DevicesError):
    """A client's own files (key, certificate, address) are missing, damaged or there already."""

    reason = "CREDENTIALS_UNUSABLE"


class ServerUntrustedError(DevicesError):
    """The server is not the one the token was made by. Nothing secret was sent to it."""

    reason = "SERVER_UNTRUSTED"


class SubmissionInvalidError(DevicesError):
    """What was handed in for enrolment is malformed: correct it and hand it in again."""

    reason = "SUBMISSION_INVALID"


class CaptureDoubtfulError(SubmissionInvalidError):
    """What was captured is not what it is called, or no use: capture again, or insist."""

    reason = "CAPTURE_DOUBTFUL"


class FingersUnexplainedError(SubmissionInvalidError):
    """Fewer fingers than asked for: capture the others, or give a reason for each."""

    reason = "FINGERS_UNEXPLAINED"


class ImageInvalidError(SubmissionInvalidError):
    """A fingerprint image cannot be read: another file, or another setting of the reader."""

    reason = "IMAGE_INVALID"


class ExtractorMissingError(DevicesError):
    """The extractor is not installed on this terminal, or is not the one that was measured."""

    reason = "EXTRACTOR_MISSING"


class QueueError(DevicesError):
    """The terminal's queue, or an entry of it, cannot be used like that: call an operator."""

    reason = "QUEUE_UNUSABLE"


class NotLoggedInError(QueueError):
    """Nobody is logged in at this terminal, or not any more: log in, then capture."""

    reason = "NOT_LOGGED_IN"


class QueueFullError(QueueError):
    """The terminal holds back as much as it may: connect it to the register."""

    reason = "QUEUE_FULL"


class OfflineTooLongError(QueueError):
    """The terminal was without the register for longer than it may be: connect it."""

    reason = "OFFLINE_TOO_LONG"


class RemoteError(DevicesError):
    """The server refused the call, or could not be reached in time.

    Attributes:
        status: gRPC status name, e.g. ``"NOT_FOUND"``.
        reason: token of the contract, e.g. ``"TERMINAL_UNKNOWN"``; empty when the answer has none
            (the network or gRPC itself refused).
        message: what a person can do about it.
        retry_after_s: when the server will hear this call again, in seconds; 0 if it did not say.
    """

    def __init__(self, status: str, reason: str, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(f"{message} ({status}{'/' + reason if reason else ''})")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after_s = retry_after_s


class UnreachableError(RemoteError):
    """No answer within the deadline, after retries. A change may or may not have been made: call
    again with the same idempotency key."""
