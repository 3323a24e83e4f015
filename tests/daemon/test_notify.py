import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamer.serve.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """The service manager's end, as systemd would own it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.settimeout(5)
        if request.param == "path":
            address = str(tmp_path / "notify")
            end.bind(address)
        else:
            address = f"@streamer-test-{os.getpid()}"
            end.bind("\0" + address[1:])
        yield end, address


def test_messages(manager: tuple[socket.socket, str]) -> None:
    end, address = manager
    notifier = Notifier(address, watchdog_usec="3000000", watchdog_pid=str(os.getpid()))
    notifier.ready("3 models")
    notifier.watchdog()
    notifier.stopping("draining")
    assert end.recv(4096).decode().splitlines() == ["READY=1", "STATUS=3 models", f"MAINPID={os.getpid()}"]
    assert end.recv(4096) == b"WATCHDOG=1"
    assert end.recv(4096) == b"STOPPING=1\nSTATUS=draining"
    assert notifier.watchdog_seconds == 1.5
    notifier.close()


def test_without_a_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notifier = Notifier.from_environment()
    notifier.ready("nobody listens")
    assert notifier.watchdog_seconds is None


def test_the_variables_are_not_inherited(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    notifier = Notifier.from_environment()
    assert "NOTIFY_SOCKET" not in os.environ
    assert "WATCHDOG_USEC" not in os.environ
    assert notifier.watchdog_seconds == 0.5
    notifier.close()


@pytest.mark.parametrize(("usec", "pid"), [("1000000", "1"), ("0", None), ("soon", None), (None, None)])
def test_a_watchdog_for_somebody_else_is_not_fed(usec: str | None, pid: str | None, tmp_path: Path) -> None:
    notifier = Notifier(str(tmp_path / "n"), usec, pid)
    assert notifier.watchdog_seconds is None
    notifier.close()


def test_a_dead_manager_is_logged_and_not_raised(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier(str(tmp_path / "nobody"))
    notifier.watchdog()
    assert "could not notify" in caplog.text
    notifier.close()
