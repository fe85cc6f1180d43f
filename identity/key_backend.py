"""Where the issuing keys of a working directory are: in files, or in a PKCS#11 token."""

from __future__ import annotations

from pathlib import Path

from identity.config import KeyConfig
from identity.errors import ConfigError
from issuance.key_files import FileKeyStore
from issuance.keys import KeyStore


def open_issuing_keys(directory: Path, config: KeyConfig) -> KeyStore:
    """The key store in `directory`, as configured.

    Raises:
        ConfigError: a passphrase or PIN file cannot be read.
        issuance.errors.KeyStoreError: the store cannot be opened.
    """
    if config.backend == "pkcs11":
        # A department's verifier imports this package too, and has no tokens.
        from issuance.key_tokens import TokenKeyStore

        pin = _secret(config.pkcs11_pin_file, "keys.pkcs11_pin_file").decode()
        return TokenKeyStore(directory, config.pkcs11_module, config.pkcs11_token, pin)
    if config.passphrase_file:
        return FileKeyStore(directory, _secret(config.passphrase_file, "keys.passphrase_file"))
    return FileKeyStore(directory)


def _secret(path: str, where: str) -> bytes:
    try:
        secret = Path(path).read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise ConfigError(f"{where}: cannot read {path}: {error.strerror}") from error
    if not secret:
        raise ConfigError(f"{where}: {path} is empty")
    return secret
