"""A real Prometheus writes its own metrics into the daemon and scrapes forecasts back; its tool checks the page."""

from __future__ import annotations

import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from streamer.engine.catalogue import resolve
from tests.daemon.prometheus import need, prometheus, wait
from tests.daemon.running import Running, daemon

CONFIG = """
global:
  scrape_interval: 1s
scrape_configs:
  - job_name: prometheus
    static_configs: [{{targets: ["127.0.0.1:{own}"]}}]
  - job_name: streamer
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
remote_write:
  - url: http://127.0.0.1:{port}/api/v1/write
    queue_config: {{batch_send_deadline: 1s}}
    write_relabel_configs: [{{source_labels: [job], regex: prometheus, action: keep}}]
"""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, int]]:
    """The daemon, and the port of the Prometheus that writes into it."""
    folder = tmp_path_factory.mktemp("prometheus")
    settings = {"max_sensors": 2000, "metrics_sensors": "go_goroutines*,*", "max_sensor_series": 300}
    with (
        daemon(folder / "streamer", resolve("forecast-online"), **settings) as running,
        prometheus(folder, lambda own: CONFIG.format(own=own, port=running.port)) as server,
    ):
        yield running, server.port


def names(running: Running) -> list[str]:
    return json.loads(running.get("/v1/forecast")[1])["streams"]


@pytest.mark.long
def test_its_own_metrics_become_streams(both: tuple[Running, int]) -> None:
    running, own = both
    wait(lambda: len(names(running)) > 300)
    name = f'go_goroutines{{instance="127.0.0.1:{own}",job="prometheus"}}'
    assert name in names(running)

    def enough() -> Any:
        status, body = running.get("/v1/forecast/" + urllib.parse.quote(name))
        if status == 503:  # its first readings wait to be run
            return None
        assert status == 200, body
        sensor = json.loads(body)
        return sensor if sensor["scores"]["readings"] > 10 else None

    sensor = wait(enough)
    assert sensor["step"] == pytest.approx(1.0, abs=0.3)
    assert len(sensor["quantiles"]["0.5"]) == 24
    page = running.metrics()
    assert page['streamer_readings_total{protocol="remote_write"}'] > 1000
    assert not [key for key in page if key.startswith("streamer_refused_readings") and 'reason="body"' in key]


@pytest.mark.long
def test_it_scrapes_the_forecasts_back(both: tuple[Running, int]) -> None:
    running, own = both
    wait(lambda: len(names(running)) > 300)

    def scraped() -> Any:
        query = urllib.parse.urlencode({"query": 'streamer_forecast{ahead="1",stream=~"go_goroutines.*"}'})
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{own}/api/v1/query?{query}", timeout=10) as answer:
                return json.load(answer)["data"]["result"]
        except OSError:
            return None

    series = wait(scraped)
    assert {one["metric"]["level"] for one in series} == {"0.05", "0.5", "0.95"}
    assert running.metrics()["streamer_sensor_series"] <= 300


def test_promtool_finds_no_fault_with_the_page(both: tuple[Running, int]) -> None:
    running, _ = both
    wait(lambda: len(names(running)) > 300)
    page = running.get("/metrics")[1]
    assert "streamer_forecast_mae" in page
    done = subprocess.run([need("promtool"), "check", "metrics"], input=page.encode(), capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
