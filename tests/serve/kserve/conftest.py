from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.several import several
from tests.daemon.running import Running, daemon
from tests.serve.kserve.clients import WIRES, Wire, free_port
from tests.serve.kserve.plant import plant
from tests.toys import toy_model

Connect = Callable[[Running], Wire]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """``plant``: rows; ``several``: two inputs and two conditions; ``toy``: a transcriber."""
    folder = tmp_path_factory.mktemp("models")
    return plant(folder), several(folder), toy_model(folder)


@contextlib.contextmanager
def serving(folder: Path, *models: Path, **settings: Any) -> Iterator[Running]:
    """A daemon with a gRPC port."""
    port = settings.pop("kserve_grpc_port", None) or free_port()
    with daemon(folder, *models, kserve_grpc_port=port, **settings) as running:
        running.grpc_port = port  # type: ignore[attr-defined]
        yield running


@pytest.fixture(scope="session")
def served(models: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One daemon for the gentler tests; each has sequences of its own."""
    with serving(tmp_path_factory.mktemp("served"), *models, checkpoint_seconds=0.2) as running:
        yield running


@pytest.fixture(scope="session")
def tight(models: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One with little room: a single slot, short bodies, few requests at a time."""
    bounds = {"capacity": 1, "max_body_bytes": 400_000, "kserve_max_pipelined": 4, "kserve_max_requests": 4}
    with serving(tmp_path_factory.mktemp("tight"), models[0], **bounds) as running:
        yield running


@pytest.fixture(scope="session")
def small(models: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One with little memory for requests: 1 MiB."""
    with serving(tmp_path_factory.mktemp("small"), models[0], max_request_memory=2**20) as running:
        yield running


@pytest.fixture(params=sorted(WIRES))
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Makes a client with a connection of its own, over HTTP and over gRPC."""
    opened: list[Wire] = []

    def connected(running: Running) -> Wire:
        opened.append(WIRES[request.param](running))
        return opened[-1]

    yield connected
    for wire in opened:
        wire.close()
