"""What the metrics cost: the page is made in a thread, and statistics ask for nothing else."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from streamer.streams.registry import Registry
from tests.engine.support import running
from tests.serve.in_process import application, ask
from tests.serve.kserve.plant import plant


class Witness(Collector):
    """Metrics that remember by which threads they were asked for."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        self.threads.append(threading.current_thread())
        yield GaugeMetricFamily("witness", "a gauge", 1.0)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        return iter(())


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with running(plant(tmp_path), folder=tmp_path) as registry:
        yield registry


def test_the_metrics_page_is_made_beside_the_event_loop(registry: Registry) -> None:
    witness = Witness()
    registry.metrics.registry.register(witness)

    async def page() -> tuple[int, bytes]:
        status, body = await ask(application(registry), "GET", "/metrics")
        return status, body

    status, body = asyncio.run(page())
    assert status == 200
    assert b"witness 1.0" in body
    assert len(witness.threads) == 1
    assert threading.current_thread() not in witness.threads


def test_statistics_do_not_compute_the_metrics_page(registry: Registry) -> None:
    witness = Witness()
    whole = registry.metrics.registry
    whole.register(witness)
    names = whole._collector_to_names
    whole._collector_to_names = {witness: names.pop(witness), **names}  # who looks for one sample asks it first

    async def statistics() -> tuple[int, bytes]:
        app = application(registry)
        status, _ = await ask(app, "POST", "/v1/streams/a", b"[[1, 2, 3], [1, 2, 3]]", "model=plant")
        assert status == 200
        found = await ask(app, "GET", "/v2/models/plant/stats")
        return found[0], found[1]

    status, body = asyncio.run(statistics())
    (found,) = json.loads(body)["model_stats"]
    assert (status, found["inference_count"], found["execution_count"]) == (200, 1, 1)
    assert found["inference_stats"]["compute_infer"]["ns"] > 0
    assert witness.threads == []
