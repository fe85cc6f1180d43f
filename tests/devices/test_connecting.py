"""devices/CONNECTING.md says what is so, and its example terminal works."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.descriptor_pool import Default
from google.protobuf.json_format import MessageToJson, ParseDict
from google.protobuf.message_factory import GetMessageClass

from anju.v1 import enrolment_pb2, operators_pb2, terminals_pb2
from devices import errors as devices_errors
from devices import keys
from devices.proof import capture_text, login_text
from devices.terminal.wire import enrol_request
from devices.token import fingerprint_of, parse_token
from devices.types import CaptureProof
from devices.wire import packed_capture_proof
from identity.app import SHARES_OF_UPLOADS
from identity.authorisation import ANONYMOUS, CAPTURE, METHODS, TERMINAL
from identity.config import CaptureConfig, ServerConfig
from identity.rpc_status import REASONS, STATUS
from identity.uploads import MAX_CHUNK_BYTES
from matcher.formats import RecordFormat
from tests.devices.loopback import Proxy
from tests.devices.served import Served
from tests.identity.kit import person, records

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "devices" / "CONNECTING.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "devices" / "examples" / "node"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Of calls that terminals may not make, or of commands; never on the wire to a terminal.
_TEXT = """
    ALREADY_DEPARTED APPLICATION_EMPTY AUDIT_BROKEN CANDIDATE_UNKNOWN CARD_NOT_DRAWN CASE_CLOSED
    CASE_OPEN CASE_UNKNOWN CHARACTER_UNPRINTABLE DEMO_FAILED ERASED KEY_INVALID LANGUAGE_UNKNOWN
    LIMIT_INVALID NOTHING_TO_APPEAL NOT_DEPARTED NOT_RESIDENT NO_REFERENCES OPERATOR_UNKNOWN
    OPTIONS_INVALID PAGE_SIZE_INVALID PAGE_TOKEN_INVALID PERMIT_NOT_ALLOWED PERMIT_NOT_VALID
    PERMIT_REVOKED PERMIT_STILL_VALID PERMIT_UNKNOWN PURPOSE_UNKNOWN REASON_MISSING
    REFERENCE_DAMAGED REGISTRANT_ERASED REGISTRANT_UNKNOWN SEAL_BROKEN SECOND_OPERATOR_REQUIRED
    SERVER_FAILED SERVER_NOT_STARTED SIMULATION_FAILED STATE_INVALID STATION_INVALID
    TERMINAL_EXISTS TERMINAL_UNKNOWN UNDER_ADJUDICATION VERDICT_MISSING WHO_MISSING
"""
NOT_FOR_TERMINALS = set(_TEXT.split())


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def vector() -> dict[str, str]:
    lines = "".join(blocks("vector")).splitlines()
    return dict(line.split(": ", 1) for line in lines)


def refusals_in_code() -> set[tuple[str, str]]:
    """(status, reason) of all that the server raises on purpose."""
    of_class = {kind.__name__: code.name for kind, code in STATUS.items()}
    found = set()
    for path in (ROOT / "identity").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            first = node.args[0]
            if name in of_class and isinstance(first, ast.Constant):
                found.add((of_class[name], str(first.value)))
    for kind, code in STATUS.items():
        family = [kind, *kind.__subclasses__()]
        for one in family if kind.__module__ == devices_errors.__name__ else ():
            found.add((code.name, str(vars(one).get("reason", ""))))
        if kind in REASONS:
            found.add((code.name, REASONS[kind]))
    return found | {
        ("INTERNAL", "INTERNAL"),
        ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"),
        ("ALREADY_EXISTS", "IDEMPOTENCY_CONFLICT"),
        ("RESOURCE_EXHAUSTED", "DISK_FULL"),
    }


def test_the_vectors_of_the_page_are_right() -> None:
    given = vector()
    token = parse_token(given["token"])
    spki = bytes.fromhex(given["server public key (SubjectPublicKeyInfo)"])
    assert fingerprint_of(spki) == given["fingerprint"] == token.fingerprint
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(given["session key (Ed25519 seed)"]))
    public = keys.public_bytes(key)
    assert public.hex() == given["session public key (SubjectPublicKeyInfo)"]
    challenge = bytes.fromhex(given["challenge"])
    login = login_text(given["operator"], given["terminal"], challenge, public)
    assert hashlib.sha256(login).hexdigest() == given["login text SHA-256"]
    assert keys.sign(key, login).hex() == given["login signature (by the same seed)"]
    request = bytes.fromhex(given["request"])
    assert enrolment_pb2.EnrolRequest.FromString(request).idempotency_key
    at = EPOCH + timedelta(microseconds=int(given["signed at (microseconds)"]))
    text = capture_text(given["session id"], "EnrolmentService.Enrol", at, request)
    assert hashlib.sha256(text).hexdigest() == given["capture text SHA-256"]
    signature = bytes.fromhex(given["capture signature"])
    assert keys.sign(key, text) == signature
    proof = packed_capture_proof(CaptureProof(given["session id"], at, signature))
    assert proof.hex() == given["CaptureProof"]


def refusals_in_table() -> list[tuple[str, str, str]]:
    """Status, reason, and what to do then."""
    return re.findall(r"^\| ([A-Z_]+) \| ([A-Z_]+) \| (\w+) \|", PAGE, re.MULTILINE)


def test_every_refusal_a_terminal_can_get_is_in_the_table_with_its_status() -> None:
    rows = refusals_in_table()
    told = {(status, reason) for status, reason, _ in rows}
    assert len(told) == len(rows)
    assert {then for *_, then in rows} == {"again", "other", "operator", "administrator"}
    known = refusals_in_code()
    uppercase = {(status, one) for status, one in known if re.fullmatch("[A-Z_]+", one)}
    # IMAGE_INVALID and the matcher's are made of their class; all of the table must be in the code.
    assert told - uppercase == set()
    missing = {(status, one) for status, one in uppercase - told if one not in NOT_FOR_TERMINALS}
    assert missing == set()
    by_reason = defaultdict(set)
    for status, reason, then in rows:
        by_reason[status].add(then)
        assert reason not in NOT_FOR_TERMINALS
    assert by_reason["UNAVAILABLE"] == by_reason["RESOURCE_EXHAUSTED"] == {"again"}


def test_the_numbers_of_the_page_are_the_defaults() -> None:
    server, capture = ServerConfig(), CaptureConfig()
    for number in (
        f"{server.max_message_bytes:,} bytes",
        f"within {server.message_s:.0f} s",
        f"{server.terminal_calls_per_minute:,} calls",
        f"{capture.max_upload_bytes >> 20} MiB",
        f"{capture.upload_bytes_per_terminal >> 20} MiB of pictures",
        f"1 to {MAX_CHUNK_BYTES:,}",
        f"a terminal has {capture.upload_streams // SHARES_OF_UPLOADS} at a time",
    ):
        assert number in PAGE.replace("\n", " "), number
    assert server.idle_s == 3_600.0
    assert all(f"| {one.name} |" in PAGE for one in RecordFormat)


def test_the_requests_made_by_hand_are_of_the_contract() -> None:
    (block,) = blocks("grpcurl")
    calls = re.findall(r"-d '(.*?)' HOST:7443 (anju\.v1\.\w+)/(\w+)$", block, re.MULTILINE)
    assert len(calls) == block.count("anju.v1.")
    assert {operators_pb2.DESCRIPTOR.package, terminals_pb2.DESCRIPTOR.package} == {"anju.v1"}
    for body, service, method in calls:
        descriptor = Default().FindServiceByName(service).FindMethodByName(method)
        ParseDict(json.loads(body), GetMessageClass(descriptor.input_type)())
        allowed = METHODS[f"{service.removeprefix('anju.v1.')}.{method}"]
        assert allowed & (TERMINAL | CAPTURE | ANONYMOUS)


# -- The example in JavaScript ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def node() -> str:
    """Node, with the example's packages installed beside it."""
    problem = None
    if shutil.which("npm") is None or shutil.which("node") is None:
        problem = "Node is not installed"
    elif not (EXAMPLE / "node_modules" / "@grpc" / "grpc-js").is_dir():
        # Not `npm ci`, see tests/issuance/test_interoperability.py.
        install = ["npm", "install", "--no-save", "--omit=optional", "--ignore-scripts", "--silent"]
        if subprocess.run(install, cwd=EXAMPLE, check=False, timeout=120).returncode:
            problem = "@grpc/grpc-js cannot be installed here"
    if problem is not None:
        if os.environ.get("CI"):
            pytest.fail(problem)
        pytest.skip(problem)
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    if tuple(int(part) for part in version.stdout.strip("v\n").split(".")[:2]) < (20, 18):
        pytest.skip("the example needs Node 20.18 or later, to trust a leaf certificate alone")
    return "node"


def run(node: str, *arguments: str | Path, stdin: str = "", within_s: float = 20) -> Any:
    done = subprocess.run(
        [node, "terminal.mjs", *map(str, arguments)],
        cwd=EXAMPLE,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "ANJU_WITHIN_S": str(within_s)},
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr.strip()


@pytest.fixture(scope="module")
def home(node: str, city: Served, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A terminal that the example has provisioned, with an operator logged in."""
    made = tmp_path_factory.mktemp("node") / "terminal"
    token = city.token("node-1").lower().replace("-", " ").replace("0", "o")
    code, told = run(node, "provision", city.provisioning, made, city.main, stdin=f"{token}\n")
    assert (code, told) == (0, {"terminal_id": "node-1", "station_id": "east-gate"})
    code, told = run(node, "login", made, "operator-1", city.login_key)
    assert code == 0, told
    return made


def application(directory: Path, number: int) -> list[Path]:
    """The files of a submission."""
    who = enrol_request(person(number, datetime.now(UTC)), [], True, None, "")
    files = [directory / "application.json"]
    files[0].write_text(MessageToJson(who, preserving_proto_field_name=True), encoding="utf-8")
    for finger, record in enumerate(records(number)):
        files.append(directory / f"{finger}.iso")
        files[-1].write_bytes(record)
    return files


def test_node_reads_tokens_and_signs_as_the_page_says(node: str) -> None:
    told = vector()
    program = """
    import { createPrivateKey, createPublicKey } from 'node:crypto'
    import * as anju from './anju.mjs'
    const told = JSON.parse(process.argv[1]), hex = (text) => Buffer.from(text, 'hex')
    const pkcs8 = hex('302e020100300506032b657004220420' + told['session key (Ed25519 seed)'])
    const key = createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' })
    const spki = createPublicKey(key).export({ type: 'spki', format: 'der' })
    console.log(JSON.stringify([
      anju.fingerprintInToken(told.token),
      anju.fingerprint(hex(told['server public key (SubjectPublicKeyInfo)'])),
      spki.toString('hex'),
      anju.signed(key, anju.loginText(told.operator, told.terminal, hex(told.challenge), spki))
        .toString('hex'),
      anju.signed(key, anju.captureText(told['session id'], 'EnrolmentService.Enrol',
        BigInt(told['signed at (microseconds)']), hex(told.request))).toString('hex'),
    ]))
    """
    done = subprocess.run(
        [node, "--input-type=module", "-e", program, json.dumps(told)],
        cwd=EXAMPLE,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout) == [
        told["fingerprint"],
        told["fingerprint"],
        told["session public key (SubjectPublicKeyInfo)"],
        told["login signature (by the same seed)"],
        told["capture signature"],
    ]


def test_node_does_with_a_refused_submission_what_the_table_says(node: str) -> None:
    rows = refusals_in_table()
    program = """
    import { Refused } from './anju.mjs'
    console.log(JSON.stringify(JSON.parse(process.argv[1]).map(([status, reason]) => {
      const one = Object.assign(Object.create(Refused.prototype), { status, reason })
      return one.passing ? 'again' : one.afterHelp ? 'stays' : 'other'
    })))
    """
    done = subprocess.run(
        [node, "--input-type=module", "-e", program, json.dumps(rows)],
        cwd=EXAMPLE,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    # Not of an Enrol, and INTERNAL, which a person looks at after the first time here.
    others = {"UPLOAD_OFFSET", "DIGEST_MISMATCH", "PASSWORD_CHANGE_REQUIRED", "CSR_INVALID"}
    for (status, reason, then), found in zip(rows, json.loads(done.stdout), strict=True):
        if reason == "UPLOAD_MISSING" or then in ("operator", "administrator"):
            then = "stays"
        if reason not in others | {"INTERNAL"}:
            assert found == then, (status, reason)


def test_node_enrols_once_however_often_it_sends(
    node: str, city: Served, home: Path, tmp_path: Path
) -> None:
    files = application(tmp_path, 4)
    address = (home / "server").read_text()
    with Proxy("127.0.0.1:1") as proxy:  # nobody is there
        (home / "server").write_text(proxy.address)
        code, told = run(node, "enrol", home, *files, within_s=0.5)
        assert (code, "UNAVAILABLE" in told) == (75, True)
        (kept,) = (home / "kept").iterdir()
        entry = kept.read_bytes()
        proxy.target(city.main)
        code, first = run(node, "send", home)
    assert (code, first["sent"][0]["state"]) == (0, "APPLICATION_STATE_ENROLLED")
    assert list((home / "kept").iterdir()) == []
    kept.write_bytes(entry)  # as if it had died before it could forget
    (home / "server").write_text(address)
    assert run(node, "send", home) == (0, first)


def test_node_keeps_what_is_refused_for_somebody_to_look_at(
    node: str, home: Path, tmp_path: Path
) -> None:
    files = application(tmp_path, 5)
    files[1].write_bytes(files[1].read_bytes()[:-1])
    code, told = run(node, "enrol", home, *files)
    assert code == 1
    assert "INVALID_ARGUMENT/DECODE_FAILED" in told
    (refused,) = (home / "kept").glob("*.refused")
    refused.unlink()


def test_node_renews_uploads_and_reports(
    node: str, city: Served, home: Path, tmp_path: Path
) -> None:
    before = (home / "certificate.pem").read_text()
    assert run(node, "renew", home)[0] == 0
    assert (home / "certificate.pem").read_text() != before
    code, told = run(node, "heartbeat", home)
    assert code == 0
    assert abs(told["clock_ahead_s"]) < 5
    picture = tmp_path / "face.png"
    picture.write_bytes(os.urandom(200_000))
    assert run(node, "upload", home, picture)[0] == 0
    assert run(node, "upload", home, picture)[0] == 0  # it is there already


def test_node_sends_nothing_to_a_server_that_is_not_the_tokens(
    node: str, city: Served, tmp_path: Path
) -> None:
    token = city.token("node-2")
    stranger = token[:18] + ("0" if token[18] != "0" else "1") + token[19:]
    code, told = run(
        node, "provision", city.provisioning, tmp_path / "a", city.main, stdin=stranger
    )
    assert (code, "mistyped" in told) == (1, True)
    told_of = parse_token(token)
    other = type(told_of)(told_of.secret, "0" * 20).text()
    code, told = run(node, "provision", city.provisioning, tmp_path / "b", city.main, stdin=other)
    assert (code, "nothing was sent" in told) == (1, True)
    assert run(node, "provision", city.provisioning, tmp_path / "c", city.main, stdin=token)[0] == 0
