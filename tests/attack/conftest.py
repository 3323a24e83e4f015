from collections.abc import Iterator

import pytest

from bench import setup
from bench.attack.overload import GUARDED
from tests.toys import toy_model


@pytest.fixture(scope="package")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[setup.Served]:
    """One daemon for all of them: each must leave it well."""
    path = toy_model(tmp_path_factory.mktemp("attacked"))
    with setup.serving(path, STREAMER_LANES="1", **GUARDED) as daemon:
        yield daemon
