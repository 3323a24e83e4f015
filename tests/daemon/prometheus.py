"""A real Prometheus."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest


def need(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{program} is not installed (Debian: prometheus)")
        pytest.skip(f"{program} is not installed (Debian: prometheus)")
    return found


def wait(what: Callable[[], Any]) -> Any:
    until = time.monotonic() + 120
    while not (found := what()):
        if time.monotonic() > until:
            raise TimeoutError("it never came")
        time.sleep(0.3)
    return found


class Prometheus:
    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, path: str, **query: str) -> Any:
        """``data`` of ``/api/v1/<path>``; what it does not understand is a failure, with its words."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                return json.load(answer)["data"]
        except HTTPError as error:
            raise AssertionError(f"{query}: {error.read().decode()}") from error

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=20) as answer:
                return answer.status == 200
        except OSError:
            return False


@contextmanager
def prometheus(folder: Path, config: Callable[[int], str]) -> Iterator[Prometheus]:
    """``config``: what stands in its file, by its own port. Files of rules lie in ``folder``."""
    program = need("prometheus")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "prometheus.yml").write_text(config(port), "utf-8")
    command = [
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield Prometheus(port)
        finally:
            process.terminate()
            process.wait(30)
