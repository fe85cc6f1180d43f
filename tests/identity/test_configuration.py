from __future__ import annotations

from pathlib import Path

import pytest

from identity.config import (
    CONFIG_FILE,
    DEFAULT_TOML,
    Config,
    ServerConfig,
    database_url,
    load_config,
)
from identity.errors import ConfigError


def load(directory: Path, toml: str) -> Config:
    (directory / CONFIG_FILE).write_text(toml, encoding="utf-8")
    return load_config(directory)


def test_the_shipped_file_says_what_the_defaults_are(tmp_path: Path) -> None:
    assert load(tmp_path, DEFAULT_TOML) == Config()


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "") == Config()


def test_stated_values_replace_defaults(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        '[server]\naddress = "0.0.0.0:9"\nhostnames = ["register"]\ndrain_s = 3\n'
        "[decision]\nfpir_same = 1e-5\n[development]\nclock_offset_days = -7\n",
    )
    assert config.server.address == "0.0.0.0:9"
    assert config.server.hostnames == ("register",)
    assert config.server.drain_s == 3.0
    assert config.decision.fpir_same == 1e-5
    assert config.development.clock_offset.days == -7
    assert config.permits == Config().permits


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("[sever]\n", "sever is no section"),
        ("workers = 4\n", "workers is no section"),
        ("server = 4\n", "server must be a table"),
        ("[server]\nworker = 4\n", "server.worker is unknown"),
        ('[server]\nworkers = "4"\n', "server.workers must be int"),
        ("[server]\nworkers = true\n", "server.workers must be int"),
        ("[server]\nworkers = 4.0\n", "server.workers must be int"),
        ("[server]\nworkers = 1\n", "server.workers must be at least 2"),
        ("[server]\naddress = 7443\n", "server.address must be str"),
        ('[server]\nhostnames = "localhost"\n', "server.hostnames must be a list"),
        ("[server]\nhostnames = [1]\n", "server.hostnames must be a list"),
        ("[server]\nhostnames = []\n", "server.hostnames must name"),
        ("[server]\nmax_message_bytes = 1000\n", "server.max_message_bytes"),
        ("[server]\ndrain_s = -1\n", "server.drain_s"),
        ("[server]\ndrain_s = nan\n", "server.drain_s"),
        ('[server]\nprovisioning_address = "127.0.0.1:7443"\n', "must differ from"),
        ("[store]\nsnapshot_every_changes = 0\n", "store.snapshot_every_changes"),
        ("[decision]\nfpir_same = 0.5\nfpir_grey = 0.1\n", "fpir_same < fpir_grey"),
        ("[decision]\nfpir_same = 0\n", "fpir_same < fpir_grey"),
        ("[decision]\nfpir_grey = 1.0\n", "fpir_same < fpir_grey"),
        ("[decision]\nfpir_same = nan\n", "fpir_same < fpir_grey"),
        ("[decision]\nfmr_verify = 0.0\n", "decision.fmr_verify"),
        ("[decision]\ncandidate_limit = 51\n", "decision.candidate_limit"),
        ('[permits]\nissuer_uri = "anju.example"\n', "permits.issuer_uri"),
        ('[permits]\nissuer_uri = "http://anju.example"\n', "permits.issuer_uri"),
        (f'[permits]\nissuer_uri = "https://{"a" * 100}"\n', "permits.issuer_uri"),
        ('[permits]\nauthority_name = ""\n', "permits.authority_name"),
        (f'[permits]\nauthority_name = "{"局" * 61}"\n', "permits.authority_name"),
        ("[permits]\nvalidity_days = 366\n", "permits.validity_days"),
        ("[permits]\nvalidity_days = 0\n", "permits.validity_days"),
        ("[lookup]\npurposes = []\n", "lookup.purposes"),
        ("[development]\nclock_offset_days = 100000000\n", "development.clock_offset_days"),
        ("[server\n", "cannot read anju.toml"),
    ],
)
def test_a_wrong_configuration_is_refused_and_the_key_is_named(
    tmp_path: Path, toml: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, toml)
    assert said in str(caught.value)


def test_two_ephemeral_ports_do_not_clash() -> None:
    ServerConfig(address="127.0.0.1:0", provisioning_address="127.0.0.1:0")


def test_a_directory_without_configuration_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run `anju init` first"):
        load_config(tmp_path)


def test_a_configuration_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(tmp_path)


def test_a_relative_database_lies_in_the_working_directory(tmp_path: Path) -> None:
    config = load(tmp_path, "")
    assert database_url(config, tmp_path) == f"sqlite:///{tmp_path / 'register.sqlite3'}"


@pytest.mark.parametrize("url", ["sqlite:////var/anju.db", "postgresql+psycopg://host/anju"])
def test_other_databases_are_left_as_stated(tmp_path: Path, url: str) -> None:
    assert database_url(load(tmp_path, f'[store]\nurl = "{url}"\n'), tmp_path) == url
