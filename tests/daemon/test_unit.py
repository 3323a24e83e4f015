"""The unit file, by systemd's own judgement. ``verify`` wants ExecStart to exist, so the test puts a real file in its
place."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from streamer.settings import Settings

UNIT = Path(__file__).resolve().parents[2] / "systemd" / "streamer.service"
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    program = tmp_path / "streamer"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    page = tmp_path / "operations.md"
    page.write_text("")
    text = UNIT.read_text().replace("/opt/streamer/bin/streamer", str(program))
    unit = tmp_path / "streamer.service"
    unit.write_text(re.sub(r"file:///opt\S*", page.as_uri(), text))
    return unit


@needs_systemd
def test_verify_is_clean(installed: Path) -> None:
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(installed)], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd
def test_exposure(installed: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=15", str(installed)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr


def test_the_manager_waits_longer_than_the_drain() -> None:
    stop = int(re.search(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.M).group(1))
    assert stop > Settings().drain_seconds + 2 * Settings().stuck_seconds + 5


def test_the_processor_is_not_hidden() -> None:
    """Of /proc/cpuinfo onnxruntime makes its choice of kernels, and the tuner the name under which it remembers."""
    assert not re.search(r"^ProcSubset=pid$", UNIT.read_text(), re.M)
