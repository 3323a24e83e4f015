"""`streamer serve` as a user starts it, for commands that are given its --url."""

from __future__ import annotations

import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cli.command import STREAMER, environment

START_SECONDS = 60.0


def until_ready(url: str) -> None:
    """Wait until the daemon says that new streams are welcome."""
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"{url.replace('ws://', 'http://')}/readyz", timeout=30):
                return
        except urllib.error.HTTPError as error:
            error.close()
            assert time.monotonic() < until
            time.sleep(0.05)


@contextmanager
def serving(folder: Path, model: Path, port: int = 0) -> Iterator[str]:
    """Its URL. SIGTERM ends it, with exit code 0; the sessions stay in ``folder``."""
    port_file = folder / "port"
    port_file.unlink(missing_ok=True)
    command = [*STREAMER, "serve", "--model", str(model), "--port", str(port), "--port-file", str(port_file)]
    with (folder / "log").open("ab") as log:
        env = environment({"STREAMER_STATE_DIRECTORY": str(folder)})
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
    try:
        until = time.monotonic() + START_SECONDS
        while not port_file.exists():
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until
            time.sleep(0.05)
        yield f"ws://127.0.0.1:{port_file.read_text().strip()}"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, (folder / "log").read_text()
