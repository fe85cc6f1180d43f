"""Roots: `CEREMONY.md` as it is written, and what must not pass for a ceremony."""

from __future__ import annotations

import re
import shlex
import shutil
from datetime import timedelta
from pathlib import Path
from string import Template

import pytest
import typer
from tuf.api.metadata import Metadata, Root
from typer.testing import CliRunner

import issuance
from identity.cli import app as identity_app
from issuance import bundle, ceremony, key_office
from issuance.authority import NewAuthority
from issuance.cli import app as issuance_app
from issuance.errors import KeyUseError, RollbackError, TrustError
from issuance.issuer import Issuer
from issuance.key_files import FileKeyStore
from issuance.keys import KeyInfo, KeyUse
from issuance.publisher import Publisher
from issuance.signing import Algorithm
from issuance.trust import TrustStore
from issuance.types import Reason
from issuance.verifier import verify
from tests.issuance.kit import HOLDER, START, Clock

DOCUMENT = Path(issuance.__file__).with_name("CEREMONY.md")


class Shell:
    """Runs the document's commands in one directory; both programs in this process, for speed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "stick").mkdir()
        self.environment: dict[str, str] = {}

    def run(self, block: str) -> None:
        for line in block.strip().splitlines():
            words = [Template(word).substitute(self.environment) for word in shlex.split(line)]
            match words:
                case ["anju", *arguments]:
                    self._invoke(identity_app, arguments, line)
                case ["python", "-m", "issuance", *arguments]:
                    self._invoke(issuance_app, arguments, line)
                case ["rm", "-r", path]:
                    shutil.rmtree(self.directory / path)
                case _:
                    pytest.fail(f"the document has a command that is not known here: {line}")

    def _invoke(self, app: typer.Typer, arguments: list[str], line: str) -> None:
        # The office's own first root key has no passphrase.
        passphrase = "" if "offline" in line else "a passphrase for tests"
        result = CliRunner().invoke(app, arguments, env={"ANJU_ROOT_PASSPHRASE": passphrase})
        assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception!r}"
        self._write_down(result.stdout)

    def _write_down(self, output: str) -> None:
        """What people note in between: the fingerprint that was read aloud, a kid from the list."""
        if found := re.search(r"^fingerprint +([0-9a-f]{64})$", output, re.MULTILINE):
            self.environment["FINGERPRINT"] = found[1]
        for use in ("permit", "trust-timestamp"):
            if found := re.search(rf"^([0-9a-f]{{16}}) +{use} .* signs", output, re.MULTILINE):
                name = use.removeprefix("trust-").upper()
                self.environment[f"{name}_KID"] = found[1]


def test_document_works_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```sh\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    assert len(blocks) >= 8
    shell = Shell(tmp_path)
    published = tmp_path / "office" / "issuance" / "trust" / "bundle.anju"
    memory = None
    for block in blocks:
        shell.run(block)
        if published.exists():
            # A verifier that looks in after every step follows them all.
            store = TrustStore.load(published.read_bytes(), memory)
            memory = store.memory
    assert memory is not None
    assert memory.root_version == 4
    assert not (tmp_path / "office" / "issuance" / "offline").exists()
    stolen = shell.environment["PERMIT_KID"]
    assert store.keys[stolen].info.compromised_at is not None
    said = ceremony.summary(bundle.unpack(published.read_bytes())["metadata/4.root.json"])
    assert len(said.keys["root"]) == said.threshold == 2
    assert shell.environment["TIMESTAMP_KID"] not in said.keys["timestamp"]


@pytest.fixture
def publisher(authority: NewAuthority, clock: Clock) -> Publisher:
    return Publisher(
        authority.directory / "trust", FileKeyStore(authority.directory / "keys"), clock
    )


def root_infos(authority: NewAuthority) -> list[KeyInfo]:
    return list(FileKeyStore(authority.offline).infos())


def test_root_without_enough_signatures_is_not_installed(
    publisher: Publisher, authority: NewAuthority, tmp_path: Path
) -> None:
    second = FileKeyStore(tmp_path / "second")
    made = second.generate(KeyUse.TRUST_ROOT, Algorithm.EDDSA, START, START + timedelta(days=9))
    proposal = publisher.propose_root([*root_infos(authority), made], 2)
    by_old = ceremony.sign(proposal, FileKeyStore(authority.offline))
    by_new = ceremony.sign(proposal, second)
    for data in (proposal, by_old, by_new):
        with pytest.raises(TrustError) as caught:
            publisher.install_root(data)
        assert caught.value.reason == "TOO_FEW_SIGNATURES"
    publisher.install_root(ceremony.sign(by_old, second))
    assert ceremony.summary(publisher.newest_root()).version == 2


def test_root_that_was_changed_after_signing_is_not_installed(
    publisher: Publisher, authority: NewAuthority
) -> None:
    proposal = publisher.propose_root(root_infos(authority), 1)
    signed = ceremony.sign(proposal, FileKeyStore(authority.offline))
    changed = signed.replace(b'"consistent_snapshot":true', b'"consistent_snapshot":false')
    assert changed != signed
    assert ceremony.summary(signed).signed_by
    assert not ceremony.summary(changed).signed_by
    with pytest.raises(TrustError):
        publisher.install_root(changed)


def test_root_of_another_version_or_none_is_not_installed(
    publisher: Publisher, authority: NewAuthority
) -> None:
    signed = ceremony.sign(
        publisher.propose_root(root_infos(authority), 1), FileKeyStore(authority.offline)
    )
    publisher.install_root(signed)
    with pytest.raises(TrustError) as caught:
        publisher.install_root(signed)
    assert caught.value.reason == "WRONG_VERSION"
    for data in (b"", b"{}", b"[" * 100_000, signed.replace(b'"root"', b'"toor"')):
        with pytest.raises(TrustError):
            publisher.install_root(data)
    with pytest.raises(TrustError) as caught:
        publisher.propose_root([], 1)
    assert caught.value.reason == "NO_KEY_FOR_ROLE"
    with pytest.raises(TrustError) as caught:
        publisher.propose_root(root_infos(authority), 2)
    assert caught.value.reason == "BAD_THRESHOLD"


def test_stolen_office_key_is_replaced_and_its_false_permit_key_refused(
    issuer: Issuer, authority: NewAuthority, clock: Clock, tmp_path: Path
) -> None:
    """The worst theft short of the root: the thief vouches for a permit key of their own."""
    honest = issuer.issue(HOLDER)
    seen = TrustStore.load(issuer.publish_trust().bundle).memory
    issuer.close()
    keys = FileKeyStore(authority.directory / "keys")
    office_key = next(info for info in keys.infos() if info.use is KeyUse.TRUST_TARGETS)

    key_office.compromise(keys, office_key.kid, clock())
    with Issuer.open(authority.directory, clock) as opened:
        before = opened.publish_trust().bundle
        # Until the ceremony verifiers follow the office as before.
        seen = TrustStore.load(before, seen).memory
        stolen_role = ceremony.summary(opened._publisher.newest_root()).keys["targets"]
        assert stolen_role == (office_key.kid,)
    Publisher(authority.directory / "trust", keys, clock).renew_root(
        FileKeyStore(authority.offline)
    )
    with Issuer.open(authority.directory, clock) as opened:
        after = TrustStore.load(opened.publish_trust().bundle, seen)
    assert verify(honest.qr_text, after, clock()).valid
    said = ceremony.summary(bundle.unpack(authority.bundle.read_bytes())["metadata/2.root.json"])
    assert office_key.kid not in said.keys["targets"]
    # What the thief signs with the old key is metadata of the old root, and refused.
    files = bundle.unpack(before)
    files["metadata/2.root.json"] = bundle.unpack(authority.bundle.read_bytes())[
        "metadata/2.root.json"
    ]
    with pytest.raises(TrustError):
        TrustStore.load(bundle.pack(files), after.memory)
    with pytest.raises(RollbackError):
        TrustStore.load(before, after.memory)


def test_online_keys_are_renewed_with_the_root_and_by_themselves(
    issuer: Issuer, authority: NewAuthority, clock: Clock
) -> None:
    """Nine years, a ceremony every two and a half: permits verify on every day looked at."""
    trust = TrustStore.load(issuer.publish_trust().bundle)
    keys = FileKeyStore(authority.directory / "keys")
    publisher = Publisher(authority.directory / "trust", keys, clock)
    for step in range(1, 130):
        clock.advance(days=25)
        if step % 36 == 0:
            key_office.prepare_for_root(keys, clock())
            publisher.renew_root(FileKeyStore(authority.offline))
        issuer.ensure_keys()
        if step % 9 == 0:
            permit = issuer.issue(HOLDER)
            trust = TrustStore.load(issuer.publish_trust().bundle, trust.memory)
            assert verify(permit.qr_text, trust, clock()).reason is Reason.VALID
    assert trust.memory.root_version == 4


def test_proposing_twice_makes_no_more_keys(authority: NewAuthority, clock: Clock) -> None:
    keys = FileKeyStore(authority.directory / "keys")
    clock.advance(days=400)
    assert len(key_office.prepare_for_root(keys, clock())) == 3
    clock.advance(days=7)
    assert key_office.prepare_for_root(keys, clock()) == ()


def test_life_of_a_permit_key(authority: NewAuthority, clock: Clock) -> None:
    keys = FileKeyStore(authority.directory / "keys")
    first = authority.permit_key
    assert key_office.ensure(keys, KeyUse.PERMIT, clock()) is None
    second = key_office.rotate(keys, KeyUse.PERMIT, clock.advance(days=1), Algorithm.ES256)
    assert second.algorithm is Algorithm.ES256
    third = key_office.retire(keys, second.kid, clock.advance(days=1))
    assert third is not None
    assert third.algorithm is Algorithm.ES256
    fourth = key_office.compromise(keys, third.kid, clock.advance(days=1))
    assert fourth is not None
    signing = [
        info.kid for info in keys.infos() if info.signs_at(clock()) and info.use is KeyUse.PERMIT
    ]
    assert signing == [fourth.kid]
    assert key_office.retire(keys, first.kid, clock()) is None
    for call in (key_office.retire, key_office.compromise):
        with pytest.raises(KeyUseError):
            call(keys, "0" * 16, clock())
    with pytest.raises(KeyUseError, match="CEREMONY"):
        key_office.rotate(keys, KeyUse.TRUST_ROOT, clock())


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_trust_metadata_is_signed_as_tuf_verifies_it(
    algorithm: Algorithm, tmp_path: Path, clock: Clock
) -> None:
    store = FileKeyStore(tmp_path / "keys")
    begin = clock()
    info = store.generate(KeyUse.TRUST_ROOT, algorithm, begin, begin + timedelta(days=1))
    root = Root()
    root.add_key(ceremony.tuf_key(info), Root.type)
    metadata = Metadata(root)
    metadata.sign(ceremony.TufKeySigner(store, info))
    root.verify_delegate(Root.type, metadata.signed_bytes, metadata.signatures)
