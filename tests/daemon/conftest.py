from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.mosquitto import Broker, need_mosquitto
from tests.daemon.running import Running, daemon
from tests.toys import toy_model


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def served(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One daemon for a module's gentler tests."""
    with daemon(tmp_path_factory.mktemp("served"), toy, checkpoint_seconds=0.2) as running:
        yield running


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    need_mosquitto()
    broker = Broker(tmp_path).start()
    yield broker
    broker.stop()
