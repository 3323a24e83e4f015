from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.running import Running, daemon
from tests.serve.kserve.clients import free_port


class VoskDaemon:
    """A daemon with a port for Vosk's clients."""

    def __init__(self, running: Running, port: int) -> None:
        self.running, self.url = running, f"ws://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def served(toy: Path, trap: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VoskDaemon]:
    port = free_port()
    settings = {"vosk_port": port, "max_protocol_connections": 8, "max_hotwords": 0}
    with daemon(tmp_path_factory.mktemp("vosk"), toy, trap, **settings) as running:
        yield VoskDaemon(running, port)
