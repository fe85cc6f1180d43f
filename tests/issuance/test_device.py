"""A department's device takes new trust material from a stick, or keeps what it has."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from issuance import delta, memory
from issuance.authority import NewAuthority, init_authority
from issuance.cli import app
from issuance.device import Device
from issuance.errors import RollbackError, TrustError
from issuance.issuer import Issuer
from tests.issuance.kit import HOLDER, RULES, START, Clock


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "device" / "trust.anju", tmp_path / "device" / "state.json")


def stick(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "stick.anju"
    path.write_bytes(data)
    return path


def test_bundles_and_deltas_are_taken_in_turn(
    issuer: Issuer, device: Device, tmp_path: Path, clock: Clock
) -> None:
    first = issuer.publish_trust()
    assert not device.take(stick(tmp_path, first.bundle)).anchored
    clock.advance(days=1)
    issuer.revoke(issuer.issue(HOLDER).status)
    second = issuer.publish_trust()
    made = issuer.trust_delta(first.version)
    assert made is not None
    store = device.take(stick(tmp_path, made.data))
    assert store.anchored
    assert store.version == second.version
    assert device.trust.read_bytes() == second.bundle
    assert device.load().version == second.version
    assert device.state is not None
    seen = memory.load(device.state)
    assert seen is not None
    assert seen.floor == clock()


def test_whatever_is_refused_leaves_the_device_as_it_was(
    issuer: Issuer, device: Device, tmp_path: Path, clock: Clock
) -> None:
    old = issuer.publish_trust().bundle
    clock.advance(days=1)
    middle = issuer.publish_trust().bundle
    device.take(stick(tmp_path, middle))
    before = {path: path.read_bytes() for path in device.trust.parent.iterdir()}
    new = issuer.publish_trust().bundle
    other = init_authority(tmp_path / "other", RULES, clock).bundle.read_bytes()
    corrupted = bytearray(new)
    corrupted[len(new) // 2] ^= 1
    cases = {
        "half copied": (new[: len(new) // 2], "NOT_A_BUNDLE"),
        "pulled at the last moment": (new[:-1], "NOT_A_BUNDLE"),
        "never written": (bytes(len(new)), "NOT_A_BUNDLE"),
        "empty": (b"", "NOT_A_BUNDLE"),
        "half a delta": (delta.make(middle, new).data[:-20], "NOT_A_DELTA"),
        "delta for others": (delta.make(new, issuer.publish_trust().bundle).data, "DELTA_UNFIT"),
        "older": (old, "ROLLBACK"),
        "another city's": (other, "WRONG_ROOT"),
    }
    for name, (data, reason) in cases.items():
        with pytest.raises(TrustError) as caught:
            device.take(stick(tmp_path, data))
        assert caught.value.reason == reason, name
    with pytest.raises(TrustError):
        device.take(stick(tmp_path, bytes(corrupted)))
    assert {path: path.read_bytes() for path in device.trust.parent.iterdir()} == before


def test_delta_needs_a_bundle_to_start_from(issuer: Issuer, device: Device, tmp_path: Path) -> None:
    first, second = issuer.publish_trust().bundle, issuer.publish_trust().bundle
    with pytest.raises(TrustError, match="whole one first"):
        device.take(stick(tmp_path, delta.make(first, second).data))
    assert not device.trust.exists()


def test_full_disk_leaves_the_device_as_it_was(
    issuer: Issuer, device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = issuer.publish_trust().bundle
    device.take(stick(tmp_path, first))

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    second = stick(tmp_path, issuer._publisher._bundle)
    with pytest.raises(OSError, match="No space"):
        device.take(second)
    assert device.trust.read_bytes() == first
    assert sorted(path.name for path in device.trust.parent.iterdir()) == [
        "state.json",
        "trust.anju",
    ]


def test_rollback_is_noticed_across_restarts(
    issuer: Issuer, device: Device, tmp_path: Path
) -> None:
    old, new = issuer.publish_trust().bundle, issuer.publish_trust().bundle
    device.take(stick(tmp_path, new))
    device.trust.write_bytes(old)
    with pytest.raises(RollbackError):
        Device(device.trust, device.state).load()


def test_import_command_says_what_it_took_or_why_not(
    issuer: Issuer, authority: NewAuthority, device: Device, tmp_path: Path
) -> None:
    source = stick(tmp_path, issuer.publish_trust().bundle)
    command = ["trust-import", str(source), "--trust", str(device.trust)]
    command += ["--state", str(device.state)]

    def run(*more: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, [*command, *more])
        return result.exit_code, result.stdout, result.stderr

    hour = (START + timedelta(hours=1)).isoformat()
    code, out, err = run("--now", hour, "--root", str(authority.root))
    assert (code, err) == (0, "")
    assert "fresh" in out
    code, out, _ = run("--now", (START - timedelta(days=3)).isoformat())
    assert code == 0
    assert "clock is behind" in out
    code, out, _ = run("--now", (START + timedelta(days=30)).isoformat())
    assert code == 0
    assert "too old" in out
    source.write_bytes(source.read_bytes()[:900])
    code, out, err = run("--now", hour)
    assert (code, out) == (2, "")
    assert err.startswith("anju: the file is not a trust bundle")
