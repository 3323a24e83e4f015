"""A daemon in a separate process that may end in any way, with a folder that outlives it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Victim", "until"]

PATIENCE = 120.0


class Victim:
    """A started daemon, which may not be ready yet. ``state``: its state directory; its output is in ``folder/log``."""

    def __init__(
        self, folder: Path, models: Sequence[str | Path], state: Path | None = None, **settings: object
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.state, self.log = state or folder / "state", folder / "log"
        self._port_file = folder / "port"
        self._port_file.unlink(missing_ok=True)
        values = {"port": 0, "lanes": 1, "state_directory": self.state, "log_format": "json", **settings}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("STREAMER_")}
        environment |= {f"STREAMER_{name.upper()}": str(value) for name, value in values.items()}
        command = [sys.executable, "-m", "streamer", "serve", "--port-file", str(self._port_file)]
        for model in models:
            command += ["--model", str(model)]
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stderr=log, stdout=log)

    @property
    def port(self) -> int:
        """Raises ``OSError`` until the daemon listens."""
        return int(self._port_file.read_text())

    def output(self) -> str:
        """The output of this process."""
        return self.log.read_bytes()[self._log_start :].decode(errors="replace")

    def get(self, path: str, body: bytes | None = None) -> tuple[int, str]:
        """Status and body of a GET, or of a POST of ``body``. Raises ``OSError``."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET" if body is None else "POST", path, body)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()

    def forecast(self, name: str) -> dict[str, Any] | None:
        status, body = self.get(f"/v1/forecast/{name}")
        return dict(json.loads(body)) if status == 200 else None

    def wait_ready(self) -> bool:
        """Wait until the daemon is ready; false if it ended instead."""
        return bool(until(lambda: self.process.poll() is not None or self.get("/readyz")[0] == 200)) and self.lives

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send the signal ``number`` and wait; returns the exit code."""
        if self.lives:
            self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.process.kill()


def until(call: Callable[[], object], patience: float = PATIENCE) -> object:
    """Repeat ``call`` until its result is true, and return it; ``OSError`` counts as false. Raises ``TimeoutError``."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            if found := call():
                return found
        except OSError:
            pass
        time.sleep(0.005)
    raise TimeoutError(f"not true within {patience:g} s")
