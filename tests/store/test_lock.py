"""Two daemons never share a state directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from streamer.store import StoreError
from streamer.store.lock import StateLock
from tests.daemon.running import Running, daemon
from tests.toys import toy_model

HOLD = "import sys, pathlib; from streamer.store.lock import StateLock; lock = StateLock(pathlib.Path(sys.argv[1])); "


def test_a_second_holder_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    first = StateLock(tmp_path / "state")
    with pytest.raises(StoreError, match=f"in use by another daemon, process {os.getpid()}$"):
        StateLock(tmp_path / "state")
    first.close()
    StateLock(tmp_path / "state").close()


def test_a_killed_holder_leaves_no_lock_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD + "print('held', flush=True); input()", str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StoreError, match=f"process {holder.pid}$"):
            StateLock(tmp_path)
        holder.send_signal(signal.SIGKILL)
        holder.wait(60)
    StateLock(tmp_path).close()


def test_what_can_not_be_locked_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="can't lock the state directory"):
        StateLock(tmp_path / "file")


def test_a_second_daemon_does_not_start_and_the_first_goes_on(tmp_path: Path) -> None:
    model = toy_model(tmp_path)
    state = tmp_path / "state"
    with daemon(tmp_path / "one", model, state_directory=state) as first:
        second = Running(tmp_path / "two", model, wait=False, state_directory=state)
        assert second.process.wait(60) == 73
        second.manager.close()
        assert f"in use by another daemon, process {first.process.pid}" in second.errors.read_text()
        assert first.get("/readyz")[0] == 200
        assert not (state / "sessions.sqlite.damaged").exists()
