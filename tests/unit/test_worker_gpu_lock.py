from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from shared.errors import Conflict, LauncherError
from worker.supervisor import gpu_lock
from worker.supervisor.gpus import Address

HOLD = """
import sys, pathlib
from worker.supervisor import gpu_lock
with gpu_lock.hold(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_card_is_held_once_and_free_again_after_kill_9(tmp_path):
    file = gpu_lock.path(Address("cpu:0"), tmp_path)
    command = [sys.executable, "-c", HOLD, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Conflict, match=rf"process {holder.pid}\b"), gpu_lock.hold(file):
            pass
        holder.kill()
    with gpu_lock.hold(file):
        assert file.read_text() == f"{os.getpid()}\n"


def test_two_shares_of_the_cpu_have_locks_of_their_own(tmp_path):
    with (
        gpu_lock.hold(gpu_lock.path(Address("cpu:0"), tmp_path)),
        gpu_lock.hold(gpu_lock.path(Address("cpu:1"), tmp_path)),
    ):
        pass


def test_a_real_card_is_one_for_all_farms_of_the_machine(tmp_path, monkeypatch):
    card = Address("cuda:0", "GPU-8932f937", "NVIDIA H200")
    with monkeypatch.context() as shell:
        shell.setenv("TMPDIR", str(tmp_path))
        shell.setattr(tempfile, "tempdir", None)
        elsewhere = gpu_lock.path(card, tmp_path / "a")
    assert gpu_lock.path(card, tmp_path / "a") == elsewhere
    assert gpu_lock.path(card, tmp_path / "a") == gpu_lock.path(card, tmp_path / "b")
    assert gpu_lock.path(Address("cpu:0"), tmp_path / "a") != gpu_lock.path(Address("cpu:0"), tmp_path / "b")


def test_a_mig_instance_of_an_older_driver_has_a_lock_of_its_own(tmp_path):
    locked = [gpu_lock.path(Address("cuda:0:1", f"MIG-GPU-8932f937/1/{number}"), tmp_path) for number in range(2)]
    assert {file.parent for file in locked} == {Path("/tmp")}
    assert len(set(locked)) == 2


def test_a_lock_can_be_held_by_other_users_farms_whatever_the_umask_says(tmp_path):
    before = os.umask(0o077)
    try:
        with gpu_lock.hold(tmp_path / "card.lock"):
            assert (tmp_path / "card.lock").stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(before)


def test_a_lock_that_cannot_be_opened_is_told():
    file = gpu_lock.path(Address("cpu:0"), Path("/proc"))
    with pytest.raises(LauncherError, match=f"The lock {file} cannot be opened"), gpu_lock.hold(file):
        pass
