"""The checks in order, each on what those before it have established."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from devices import credentials
from devices.certificates import issued_by, principal_from_certificate
from devices.errors import CertificateInvalidError, CredentialsError, RemoteError
from devices.terminal.conformance import tls, wire
from devices.terminal.conformance.findings import Finding, Outcome, failed, passed, skipped
from devices.terminal.conformance.tls import Presented
from devices.terminal.conformance.wire import CHUNK, PIECES, Line
from devices.types import Role

CLOCK_TOLERANCE = timedelta(seconds=60)
HELD_S = 2.0
SIZES = (65_536, 262_144, 1_048_576)  # the last is server.max_message_bytes by default
UNREADABLE = (OSError, ValueError, UnsupportedAlgorithm)
NEEDED = {"tls-1.3", "server-certificate", "fingerprint", "credentials", "authority"}
CALLS = (
    "heartbeat",
    "clock",
    "error-details",
    "message-size",
    "deadline",
    "replay",
    "upload",
    "idle",
)
COMPARE = "Look from a network that you trust, and give what you see there with --fingerprint."
STRIPPED = (
    "A proxy answers in the server's place or drops HTTP/2 trailers. It must pass on "
    "`grpc-status`, `grpc-message` and `grpc-status-details-bin`; plain TCP does."
)


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Target:
    """What is checked.

    Attributes:
        address: host:port of the main port.
        provisioning: of the provisioning port, if that is to be checked.
        directory: a terminal's credentials. Without, only TLS is looked at.
        fingerprint: the server's, 20 symbols, as a provisioning token carries it; empty if unknown.
    """

    address: str
    provisioning: str | None = None
    directory: Path | None = None
    fingerprint: str = ""


def check(
    target: Target,
    idle_s: float = 10.0,
    deadline_s: float = 10.0,
    now: Callable[[], datetime] = _utc_now,
) -> Iterator[Finding]:
    """Each finding as it is made; what cannot be checked for what failed before is skipped.

    Leaves the terminal's last contact and an audit entry (see ``wire``), nothing else.

    Args:
        idle_s: how long a connection is left idle, to see whether something cuts it.
        deadline_s: of each connection and call.
        now: this machine's clock; replaced in tests.

    Raises:
        CredentialsError: an address is malformed.
    """
    for address in (target.address, target.provisioning):
        if address is not None:
            credentials.check_address(address)
    shown, findings = _port(target, deadline_s, now())
    yield from findings
    if target.provisioning is None:
        yield skipped("provisioning", "no address given", "Name it with --provisioning.")
    else:
        yield _provisioning(target.provisioning, shown, deadline_s)
    if target.directory is None:
        yield skipped("credentials", "none given", "Name a terminal's directory with --as.")
        for name in ("authority", "call", *CALLS):
            yield skipped(name, "needs credentials")
        return
    mine, finding = _credentials(target.directory, now())
    findings += [finding, _authority(shown, mine)]
    yield from findings[-2:]
    failures = {one.check for one in findings if one.outcome is Outcome.FAILED}
    if mine is None or failures & NEEDED:
        for name in ("call", *CALLS):
            yield skipped(name, "not tried while a check above fails")
        return
    with closing(wire.line(mine, target.address, deadline_s)) as line:
        yield from _calls(line, mine, idle_s, now)


def _port(
    target: Target, deadline_s: float, now: datetime
) -> tuple[Presented | None, list[Finding]]:
    try:
        shown = tls.presented(target.address, deadline_s)
    except UNREADABLE as error:
        none = failed(
            "tls-1.3",
            f"no TLS 1.3 at {target.address}: {error}",
            "Is the address right, does the server run, does a firewall let the port through? A "
            "proxy that cannot speak TLS 1.3 must pass the connection through as plain TCP.",
        )
        return None, [none]
    findings = [passed("tls-1.3", f"{target.address} answers in TLS 1.3")]
    if shown.protocol == "h2":
        findings.append(passed("http2", "ALPN agrees on h2"))
    else:
        advice = "gRPC needs HTTP/2 end to end: have the port passed through as plain TCP."
        findings.append(failed("http2", f"ALPN agrees on {shown.protocol or 'nothing'}", advice))
    findings.append(tls.old_tls(target.address, deadline_s))
    findings.append(tls.server_certificate(shown, now))
    if not target.fingerprint:
        findings.append(skipped("fingerprint", "none given", COMPARE))
    elif target.fingerprint == shown.fingerprint:
        findings.append(passed("fingerprint", "the server's key is the one expected"))
    else:
        found = f"{shown.fingerprint}, not {target.fingerprint}"
        findings.append(failed("fingerprint", found, tls.NOT_OURS))
    return shown, findings


def _provisioning(address: str, main: Presented | None, deadline_s: float) -> Finding:
    check = "provisioning"
    try:
        shown = tls.presented(address, deadline_s)
    except UNREADABLE as error:
        advice = "It is needed to set terminals up: does a firewall let the port through?"
        return failed(check, f"no TLS 1.3 at {address}: {error}", advice)
    if main is not None and shown.fingerprint != main.fingerprint:
        found = f"another key ({shown.fingerprint}) than on the main port ({main.fingerprint})"
        return failed(check, found, tls.NOT_OURS)
    with closing(wire.pinned_line(address, shown.certificate, deadline_s)) as line:
        answer = line.health()
    if not answer.fine:
        advice = "TLS gets through and HTTP/2 does not: have the port passed through as plain TCP."
        return failed(check, str(answer), advice)
    return passed(check, f"{address} has the same key and answers")


def _credentials(directory: Path, now: datetime) -> tuple[credentials.Credentials | None, Finding]:
    check = "credentials"
    renew = "Renew (RenewCertificate; `anju terminal run` does), or provision this terminal anew."
    try:
        mine = credentials.load(directory)
        key = credentials.load_key(directory)
        principal = principal_from_certificate(mine.certificate_pem)
        certificate = x509.load_pem_x509_certificate(mine.certificate_pem)
        ca = x509.load_pem_x509_certificate(mine.ca_pem)
    except (CredentialsError, CertificateInvalidError, ValueError) as error:
        return None, failed(check, str(error), "Provision this terminal.")
    if certificate.public_key() != key.public_key():
        return None, failed(check, "certificate.pem is for another key than key.pem", renew)
    if not issued_by(certificate, ca):
        return None, failed(check, "the authority in ca.pem did not issue certificate.pem", renew)
    until = f"{principal}, valid until {certificate.not_valid_after_utc:%Y-%m-%d}"
    return mine, tls.validity(check, certificate, now, renew) or passed(check, until)


def _authority(shown: Presented | None, mine: credentials.Credentials | None) -> Finding:
    check = "authority"
    if shown is None or mine is None:
        return skipped(check, "no server certificate, or no authority, to look at")
    if not issued_by(shown.certificate, x509.load_pem_x509_certificate(mine.ca_pem)):
        found = f"it vouches for nobody like that: {tls.whose(shown.certificate)}"
        return failed(check, found, tls.NOT_OURS)
    return passed(check, "the server's certificate is from this terminal's authority")


def _calls(
    line: Line, mine: credentials.Credentials, idle_s: float, now: Callable[[], datetime]
) -> Iterator[Finding]:
    answer = line.health()
    if not answer.fine:
        advice = (
            "The handshake works and a call does not: something in between is no HTTP/2 proxy, or "
            "asks for no client certificate, or the server is just stopping (try again)."
        )
        yield failed("call", str(answer), advice)
        for name in CALLS:
            yield skipped(name, "no call gets through")
        return
    yield passed("call", f"the server says that it serves ({1000 * answer.took_s:.0f} ms)")
    if principal_from_certificate(mine.certificate_pem).role is Role.TERMINAL:
        yield from _attempted(("heartbeat", "clock"), lambda: _heartbeat(line, now))
        yield from _attempted(("error-details",), lambda: [_details(line)])
        yield from _attempted(("message-size",), lambda: [_sizes(line)])
        yield from _attempted(("deadline", "replay", "upload"), lambda: _upload(line))
    else:
        for name in CALLS[:-1]:
            yield skipped(name, "for a terminal's credentials only")
    yield _idle(line, idle_s)


def _attempted(names: tuple[str, ...], part: Callable[[], Sequence[Finding]]) -> Iterator[Finding]:
    """The part's findings; a refusal it did not expect fails the first and skips the others."""
    try:
        yield from part()
    except RemoteError as error:
        advice = (
            "The register is busy or full; try again later."
            if error.status == "RESOURCE_EXHAUSTED"
            else "See `reason` in devices/CONNECTING.md."
            if error.reason
            else STRIPPED
        )
        yield failed(names[0], str(error), advice)
        for name in names[1:]:
            yield skipped(name, f"{names[0]} failed")


def _heartbeat(line: Line, now: Callable[[], datetime]) -> list[Finding]:
    before = now()
    theirs = line.register_time()
    after = now()
    ahead = before + (after - before) / 2 - theirs
    took_ms = (after - before) / timedelta(milliseconds=1)
    how = "ahead of" if ahead > timedelta(0) else "behind"
    found = f"this machine's clock is {abs(ahead).total_seconds():.1f} s {how} the register's"
    advice = "Synchronise this machine's clock (NTP): certificates are judged by it."
    right = abs(ahead) <= CLOCK_TOLERANCE
    return [
        passed("heartbeat", f"answered in {took_ms:.0f} ms"),
        passed("clock", found) if right else failed("clock", found, advice),
    ]


def _details(line: Line) -> Finding:
    check, answer = "error-details", line.unknown_application()
    if (answer.status, answer.reason) != ("NOT_FOUND", "APPLICATION_UNKNOWN"):
        found = f"expected NOT_FOUND/APPLICATION_UNKNOWN with its details, got {answer}"
        return failed(check, found, STRIPPED)
    return passed(check, "a refusal comes with its google.rpc.ErrorInfo")


def _sizes(line: Line) -> Finding:
    """Each size is answered by the register itself, if only that it is too large."""
    check, taken = "message-size", 0
    for size in SIZES:
        answer = line.message_of(size)
        if answer.reason not in ("APPLICATION_UNKNOWN", "MESSAGE_TOO_LARGE"):
            found = f"a message of {size:,} bytes does not reach the register: {answer}"
            advice = f"Let whatever is in between pass request bodies of {SIZES[-1]:,} bytes."
            return failed(check, found, advice)
        if answer.reason == "APPLICATION_UNKNOWN":
            taken = size
    return passed(check, f"messages of up to {taken:,} bytes are taken")


def _upload(line: Line) -> list[Finding]:
    """Three pieces; the stream ends at its deadline after one, and the rest goes in another."""
    upload = line.upload()
    held = upload.send(0, 1, hold_s=HELD_S)
    if held.status != "DEADLINE_EXCEEDED":
        raise RemoteError(held.status, held.reason, held.message)
    has = upload.received(CHUNK)
    if has != CHUNK:
        found = (
            f"a stream of {CHUNK:,} bytes was left at its deadline of {HELD_S:.0f} s; the register "
            f"has {has:,} of them"
        )
        advice = "A proxy holds back requests until they are whole: turn its buffering off."
        return [failed("deadline", found, advice), *_upload_skipped()]
    findings = [
        passed("deadline", f"a call ends at its deadline ({held.took_s:.1f} s), at both ends")
    ]
    again = upload.send(0, 1)
    if (again.reason, upload.received(CHUNK)) == ("UPLOAD_OFFSET", CHUNK):
        findings.append(passed("replay", "what is sent again is recognised, not taken twice"))
    else:
        found = f"the first piece was sent again: {again}"
        findings.append(failed("replay", found, STRIPPED))
    rest = upload.send(1, PIECES)
    left = upload.received(0)
    if (rest.reason, left) == ("DIGEST_MISMATCH", 0):
        found = f"{PIECES} pieces in two streams arrived, and were forgotten as asked"
        findings.append(passed("upload", found))
    else:
        found = f"{PIECES - 1} pieces after a cut: {rest}; the register keeps {left:,} bytes"
        findings.append(failed("upload", found, STRIPPED))
    return findings


def _upload_skipped() -> list[Finding]:
    return [skipped(name, "deadline failed") for name in ("replay", "upload")]


def _idle(line: Line, idle_s: float) -> Finding:
    check = "idle"
    advice = (
        f"Something in between forgets idle connections within {idle_s:g} s. Have it keep them for "
        "an hour, or have the terminal send HTTP/2 pings, not more often than every 30 s."
    )
    with line.watched() as left:
        time.sleep(idle_s)
        cut = bool(left)
        answer = line.health()
    if not answer.fine:
        return failed(check, f"after {idle_s:g} s without a call: {answer}", advice)
    if cut:
        found = f"the connection was closed within {idle_s:g} s without a call"
        return failed(check, found, advice)
    return passed(check, f"the connection lives after {idle_s:g} s without a call")
