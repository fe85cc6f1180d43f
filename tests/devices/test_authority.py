from __future__ import annotations

import stat
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store

from devices import credentials
from devices.authority import SERVER_NAME, Authority, init_authority, open_authority
from devices.certificates import principal_from_certificate
from devices.errors import AuthorityError, CredentialsError, StationInvalidError
from devices.types import Principal, Role
from tests.devices.fakes import FakeClock


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_keys_are_readable_by_their_owner_only(authority: Authority, tmp_path: Path) -> None:
    assert mode(tmp_path / "authority/ca-key.pem") == 0o600
    assert mode(tmp_path / "authority/server-key.pem") == 0o600


def test_an_authority_is_never_overwritten(
    authority: Authority, clock: FakeClock, tmp_path: Path
) -> None:
    before = (tmp_path / "authority/ca-key.pem").read_bytes()
    with pytest.raises(AuthorityError, match="exists already"):
        init_authority(tmp_path / "authority", clock)
    assert (tmp_path / "authority/ca-key.pem").read_bytes() == before


def test_an_authority_with_a_readable_key_is_refused(
    authority: Authority, clock: FakeClock, tmp_path: Path
) -> None:
    (tmp_path / "authority/ca-key.pem").chmod(0o640)
    with pytest.raises(AuthorityError, match="read by others"):
        open_authority(tmp_path / "authority", clock)


@pytest.mark.parametrize("damage", ["ca-key.pem", "ca-cert.pem", "server-cert.pem"])
def test_a_damaged_authority_is_refused(
    authority: Authority, clock: FakeClock, tmp_path: Path, damage: str
) -> None:
    (tmp_path / "authority" / damage).write_bytes(b"-----BEGIN NONSENSE-----\n")
    with pytest.raises(AuthorityError):
        open_authority(tmp_path / "authority", clock)


def test_a_mixed_up_authority_is_refused(
    authority: Authority, clock: FakeClock, tmp_path: Path
) -> None:
    init_authority(tmp_path / "other", clock)
    (tmp_path / "other/ca-cert.pem").replace(tmp_path / "authority/ca-cert.pem")
    with pytest.raises(AuthorityError, match="belong together"):
        open_authority(tmp_path / "authority", clock)


def test_the_server_certificate_passes_an_independent_verifier(
    authority: Authority, clock: FakeClock
) -> None:
    """pyca's path validation, which follows the CA/Browser Forum profile as well as RFC 5280."""
    store = Store([x509.load_der_x509_certificate(authority.certificate)])
    verifier = (
        PolicyBuilder()
        .store(store)
        .time(clock.now())
        .build_server_verifier(x509.DNSName(SERVER_NAME))
    )
    assert verifier.verify(authority.server_certificate, [])


def test_a_client_certificate_passes_an_independent_verifier(
    authority: Authority, clock: FakeClock
) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    certificate = authority.issue_client(key.public_key(), Role.TERMINAL, "t-1", "hall")
    store = Store([x509.load_der_x509_certificate(authority.certificate)])
    verified = (
        PolicyBuilder()
        .store(store)
        .time(clock.now())
        .build_client_verifier()
        .verify(certificate, [])
    )
    assert verified.subjects is not None
    assert [name.value for name in verified.subjects] == ["anju://terminal/hall/t-1"]


def test_serial_numbers_are_random_and_long(authority: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    serials = {authority.issue_client(key, Role.OPERATOR, "op-1").serial_number for _ in range(20)}
    assert len(serials) == 20
    assert all(serial.bit_length() > 128 for serial in serials)


def test_opening_again_changes_nothing(
    authority: Authority, clock: FakeClock, tmp_path: Path
) -> None:
    assert open_authority(tmp_path / "authority", clock).server == authority.server


def test_the_server_certificate_is_renewed_when_near_expiry(
    authority: Authority, clock: FakeClock, tmp_path: Path
) -> None:
    clock.advance(timedelta(days=246))
    renewed = open_authority(tmp_path / "authority", clock)
    assert renewed.server.certificate_pem != authority.server.certificate_pem
    assert renewed.server_certificate.not_valid_after_utc > clock.now() + timedelta(days=364)
    assert renewed.server_fingerprint == authority.server_fingerprint  # tokens on their way hold


def test_the_server_certificate_is_renewed_for_other_names(
    authority: Authority, clock: FakeClock, tmp_path: Path
) -> None:
    renewed = open_authority(tmp_path / "authority", clock, ["register.example", "10.0.0.5"])
    names = renewed.server_certificate.extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    ).value
    assert names.get_values_for_type(x509.DNSName) == [SERVER_NAME, "register.example"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.5"]


def test_names_that_are_not_asked_for_stay(
    authority: Authority, clock: FakeClock, tmp_path: Path
) -> None:
    """A command that only opens the authority must not undo what the server was set up with."""
    named = open_authority(tmp_path / "authority", clock, ["register.example"])
    assert open_authority(tmp_path / "authority", clock).server == named.server
    clock.advance(timedelta(days=300))
    renewed = open_authority(tmp_path / "authority", clock).server_certificate
    names = renewed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [SERVER_NAME, "register.example"]


def test_no_draft_is_left_behind(authority: Authority, tmp_path: Path) -> None:
    names = sorted(path.name for path in (tmp_path / "authority").iterdir())
    assert names == ["ca-cert.pem", "ca-key.pem", "server-cert.pem", "server-key.pem"]


def test_a_deleted_server_key_is_replaced_and_changes_the_fingerprint(
    authority: Authority, clock: FakeClock, tmp_path: Path
) -> None:
    (tmp_path / "authority/server-key.pem").unlink()
    renewed = open_authority(tmp_path / "authority", clock)
    assert renewed.server_fingerprint != authority.server_fingerprint
    assert renewed.certificate == authority.certificate


def test_an_expired_root_is_refused(authority: Authority, clock: FakeClock, tmp_path: Path) -> None:
    clock.advance(timedelta(days=3_653))
    with pytest.raises(AuthorityError, match="expired"):
        open_authority(tmp_path / "authority", clock)


def test_no_certificate_outlives_the_root(authority: Authority, clock: FakeClock) -> None:
    root = x509.load_der_x509_certificate(authority.certificate)
    clock.advance(timedelta(days=3_600))
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    certificate = authority.issue_client(key, Role.OPERATOR, "op-1")
    assert certificate.not_valid_after_utc == root.not_valid_after_utc


def test_operator_credentials_can_be_loaded_and_name_the_operator(
    authority: Authority, tmp_path: Path
) -> None:
    serial = authority.write_client(tmp_path / "op", Role.OPERATOR, "op-1", "localhost:7443")
    loaded = credentials.load(tmp_path / "op")
    assert loaded.address == "localhost:7443"
    assert mode(tmp_path / "op/key.pem") == 0o600
    principal = principal_from_certificate(loaded.certificate_pem)
    assert principal == Principal(Role.OPERATOR, "op-1")
    assert principal.serial == serial
    assert loaded.key_pem.decode() not in repr(loaded)


def test_operator_credentials_are_never_overwritten(authority: Authority, tmp_path: Path) -> None:
    authority.write_client(tmp_path / "op", Role.OPERATOR, "op-1", "localhost:7443")
    with pytest.raises(CredentialsError):
        authority.write_client(tmp_path / "op", Role.OPERATOR, "op-2", "localhost:7443")


def test_credentials_that_others_can_read_are_refused(authority: Authority, tmp_path: Path) -> None:
    authority.write_client(tmp_path / "op", Role.OPERATOR, "op-1", "localhost:7443")
    (tmp_path / "op/key.pem").chmod(0o644)
    with pytest.raises(CredentialsError, match="read by others"):
        credentials.load(tmp_path / "op")


@pytest.mark.parametrize(
    ("role", "id", "station_id"),
    [
        (Role.TERMINAL, "t-1", ""),
        (Role.TERMINAL, "t/1", "hall"),
        (Role.TERMINAL, "t-1", "ha/ll"),
        (Role.OPERATOR, "op-1", "hall"),
        (Role.OPERATOR, "x", ""),
        (Role.OPERATOR, "Op-1", ""),
        (Role.DEPARTMENT, "a" * 33, ""),
        (Role.OPERATOR, "op-1\n", ""),
    ],
)
def test_a_malformed_identity_gets_no_certificate(
    authority: Authority, role: Role, id: str, station_id: str
) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    with pytest.raises(StationInvalidError):
        authority.issue_client(key, role, id, station_id)


def test_a_leaf_is_for_clients_or_for_the_server(authority: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    client = authority.issue_client(key, Role.OPERATOR, "op-1")
    for certificate, purpose in (
        (client, ExtendedKeyUsageOID.CLIENT_AUTH),
        (authority.server_certificate, ExtendedKeyUsageOID.SERVER_AUTH),
    ):
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usage) == [purpose]
    assert client.public_bytes(Encoding.DER) != authority.certificate
