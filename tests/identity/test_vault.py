from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity.errors import ConfigError, SealError
from identity.vault import (
    KEY_FILES,
    Vault,
    create_keys,
    open_vault,
    seal,
    unseal,
    write_secret,
)

KEY = bytes(range(32))
VAULT = Vault(KEY, b"l" * 32, b"s" * 32)


@given(st.binary(max_size=2_000), st.text(max_size=60))
def test_what_was_sealed_opens_again(plaintext: bytes, context: str) -> None:
    assert unseal(KEY, seal(KEY, plaintext, context), context) == plaintext


def test_the_same_plaintext_never_seals_the_same_way() -> None:
    assert seal(KEY, b"same", "row/1") != seal(KEY, b"same", "row/1")


@given(st.binary(min_size=1, max_size=60), st.data())
def test_a_changed_byte_is_noticed(plaintext: bytes, data: st.DataObject) -> None:
    sealed = bytearray(seal(KEY, plaintext, "row/1"))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SealError, match="row/1"):
        unseal(KEY, bytes(sealed), "row/1")


@pytest.mark.parametrize("length", [0, 1, 11, 12, 13, 27, 28])
def test_sealed_data_that_was_cut_off_is_refused(length: int) -> None:
    sealed = seal(KEY, b"x", "row/1")
    with pytest.raises(SealError) as caught:
        unseal(KEY, sealed[:length], "row/1")
    assert caught.value.reason == "SEAL_BROKEN"


def test_a_row_swapped_with_another_does_not_open() -> None:
    with pytest.raises(SealError) as caught:
        unseal(KEY, seal(KEY, b"x", "sample/A-1/0"), "sample/A-2/0")
    assert caught.value.reason == "SEAL_BROKEN"


def test_another_key_does_not_open_it() -> None:
    with pytest.raises(SealError):
        unseal(b"\1" * 32, seal(KEY, b"x", "row"), "row")


def test_a_data_key_comes_back_from_its_wrapping() -> None:
    key, wrapped = VAULT.new_data_key("A-1")
    assert VAULT.unwrap("A-1", wrapped) == key
    assert key not in wrapped
    assert VAULT.new_data_key("A-1")[0] != key


def test_a_data_key_wrapped_for_one_person_is_not_anothers() -> None:
    _, wrapped = VAULT.new_data_key("A-1")
    with pytest.raises(SealError):
        VAULT.unwrap("A-2", wrapped)


def test_an_erased_key_says_that_it_was_erased() -> None:
    with pytest.raises(SealError) as caught:
        VAULT.unwrap("A-1", None)
    assert caught.value.reason == "ERASED"


def test_the_document_index_finds_equal_documents_and_hides_them() -> None:
    index = VAULT.document_index("999999199001010014")
    assert index == VAULT.document_index("999999199001010014")
    assert index != VAULT.document_index("999999199001010022")
    assert index != Vault(KEY, b"m" * 32, b"s" * 32).document_index("999999199001010014")
    assert len(index) == 32


def test_a_vault_never_prints_its_keys() -> None:
    assert repr(VAULT) == str(VAULT) == "Vault(...)"


def test_key_files_are_private_and_open_as_they_were_made(tmp_path: Path) -> None:
    create_keys(tmp_path / "keys")
    for name in KEY_FILES:
        assert (tmp_path / "keys" / name).stat().st_mode & 0o777 == 0o600
    vault = open_vault(tmp_path / "keys")
    assert vault == open_vault(tmp_path / "keys")
    assert len({vault.kek, vault.lookup_key, vault.snapshot_key}) == 3


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    create_keys(tmp_path / "keys")
    (tmp_path / "keys" / KEY_FILES[1]).chmod(mode)
    with pytest.raises(ConfigError, match=rf"document-lookup\.key has mode {mode:o}"):
        open_vault(tmp_path / "keys")


def test_a_key_of_the_wrong_length_is_refused(tmp_path: Path) -> None:
    create_keys(tmp_path / "keys")
    (tmp_path / "keys" / KEY_FILES[0]).write_bytes(b"short")
    with pytest.raises(ConfigError, match="has 5 bytes, expected 32"):
        open_vault(tmp_path / "keys")


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    create_keys(tmp_path / "keys")
    (tmp_path / "keys" / KEY_FILES[2]).unlink()
    with pytest.raises(ConfigError, match=r"index-snapshot\.key"):
        open_vault(tmp_path / "keys")


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    create_keys(tmp_path / "keys")
    before = open_vault(tmp_path / "keys")
    with pytest.raises(FileExistsError):
        create_keys(tmp_path / "keys")
    with pytest.raises(FileExistsError):
        write_secret(tmp_path / "keys" / KEY_FILES[0], b"other")
    assert open_vault(tmp_path / "keys") == before
