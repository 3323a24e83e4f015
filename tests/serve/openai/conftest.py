from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from tests.daemon.running import Running, daemon
from tests.toys import toy_model


@pytest.fixture(scope="session")
def worded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy whose every letter is a word, so that words are stable before their utterance ends."""
    return toy_model(tmp_path_factory.mktemp("worded"), name="worded", options={"units": "words"})


@pytest.fixture(scope="session")
def served(toy: Path, trap: Path, worded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with daemon(tmp_path_factory.mktemp("openai"), toy, trap, worded) as running:
        yield running


@pytest.fixture
def client(served: Running) -> Iterator[OpenAI]:
    with talking_to(served) as client:
        yield client


def talking_to(running: Running) -> OpenAI:
    return OpenAI(base_url=f"http://127.0.0.1:{running.port}/v1", api_key="none", max_retries=0, timeout=60)
