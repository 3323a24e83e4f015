"""The observability kit as it is shipped: a real Prometheus with its scrape config and rules reads a real daemon, and
every panel asks it."""

from __future__ import annotations

import asyncio
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from streamer.engine.catalogue import resolve
from streamer.metrics import Metrics
from streamer.sensors.prometheus import SensorCollector
from tests.daemon.prometheus import Prometheus, need, prometheus, wait
from tests.daemon.running import ROOT, Running, daemon
from tests.daemon.talk import dial, noise, opened, transcribe, until_closed

DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus"
BOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))

#: (panel, metric) of queries that need not have data here: what they count has not happened, and why not.
NOT_HERE = {
    ("Finals for the second pass", "streamer_second_pass_finals_total"): "needs Whisper",
    ("From a final to its revision", "streamer_second_pass_seconds_bucket"): "needs Whisper",
    ("Refused requests", "streamer_refused_requests_total"): "needs more requests than max_requests at a time",
    ("MQTT", "streamer_mqtt_messages_total"): "needs a broker",
    ("MQTT", "streamer_mqtt_forecasts_total"): "needs a broker",
    ("Decoding, and waiting for more streams", "streamer_held_seconds_sum"): "only where waiting pays",
    ("Dropped forecasts", "streamer_dropped_forecasts_total"): "needs a subscriber that does not read",
}

#: Prometheus, and what it said to a query of a panel.
Asked = tuple[Prometheus, dict[tuple[str, str], Any]]


def panels() -> list[tuple[str, str, str]]:
    """Board, title of the panel, query; of all boards."""
    found = []
    for path in BOARDS:
        for panel in json.loads(path.read_text("utf-8"))["panels"]:
            found += [(path.stem, panel["title"], target["expr"]) for target in panel.get("targets", ())]
    return found


def filled(query: str) -> str:
    """As Grafana sends it, with everything chosen."""
    for name, value in (("__rate_interval", "15s"), ("__range", "60s")):
        query = query.replace(f"${name}", value)
    return re.sub(r"\$(job|instance|model|sensor)\b", ".*", query)


def named(query: str) -> set[str]:
    return set(re.findall(r"(?<![:\w])streamer_\w+", query))


def on_the_page() -> set[str]:
    """Every name of a sample that a daemon can give."""
    registry = Metrics(CollectorRegistry()).registry
    families = [*registry.collect(), *SensorCollector([], [], 0, 0).collect()]
    found = set()
    for family in families:
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "info": ["_info"]}
        found |= {family.name + suffix for suffix in suffixes.get(family.type, [""])}
    return found


def post(running: Running, path: str, body: str) -> int:
    return running.ask("POST", path, body.encode(), {"Content-Type": "text/csv"}).status


async def some_of_everything(running: Running, turn: int) -> None:
    """Streams, one that does not fit, one that is resumed, bad input, floats in the place of PCM, sensors' readings."""
    async with AsyncExitStack() as stack:
        ids = []
        for _ in range(2):
            socket, ready = await stack.enter_async_context(opened(running.url))
            ids.append((socket, ready["stream"]))
            await socket.send(noise(turn, 1.0))
        refused, _ = await stack.enter_async_context(opened(running.url))
        await until_closed(refused)
        nobody, _ = await stack.enter_async_context(opened(running.url, model="nobody"))
        await until_closed(nobody)
        stream = ids[0][1]
        again = await stack.enter_async_context(dial(running.url))
        await again.send(json.dumps({"type": "resume", "stream": stream, "seq": 0}))
        await again.recv()
        floats = np.sin(np.arange(16000) / 10).astype(np.float32).tobytes()
        for socket in (again, ids[1][0]):
            await socket.send(floats)
            await socket.send('{"type":"end"}')
            await until_closed(socket)
    await transcribe(running.url, [noise(turn, 1.0)])
    async with opened(running.url) as (socket, ready):
        assert running.ask("POST", f"/v1/sessions/{ready['stream']}/evict").status == 204
        await until_closed(socket)
    rows = "\n".join(f"{60 * (100 * turn + n)},{20 + math.sin(n / 7)},{n % 5}" for n in range(100))
    post(running, "/v1/readings", f"time,temperature,level\n{rows}\n")
    post(running, "/v1/readings", "time,temperature,level\nnever,?,?\n")
    running.ask("GET", "/v1/models", headers={"Host": "elsewhere.example.com"})


@pytest.fixture(scope="module")
def asked(
    toy: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Prometheus, dict[tuple[str, str], Any]]]:
    """Prometheus, and what it says to every panel: asked while streams come and go, until all that can have data do."""
    folder = tmp_path_factory.mktemp("kit")
    for name in ("recording.yml", "alerts.yml"):
        shutil.copy(RULES / name, folder)
    text = (RULES / "prometheus.yml").read_text("utf-8")
    assert (text.count("127.0.0.1:8765"), text.count(": 15s")) == (1, 2)
    settings = {"capacity": 2, "grace_seconds": 1, "checkpoint_seconds": 0.5, "max_sensors": 20}
    with daemon(folder / "streamer", toy, resolve("forecast-online"), **settings) as running:
        config = text.replace("127.0.0.1:8765", f"127.0.0.1:{running.port}").replace(": 15s", ": 1s")
        with prometheus(folder, lambda own: config) as server:
            wait(server.ready)
            found: dict[tuple[str, str], Any] = {}
            turn = 0

            def all_there() -> bool:
                nonlocal turn
                asyncio.run(some_of_everything(running, turn := turn + 1))
                for _, title, query in panels():
                    key = (title, query)
                    if not found.get(key):
                        result = server.ask("query", query=filled(query))["result"]
                        found[key] = [one for one in result if one["value"][1] != "NaN"]
                return all(found[title, query] for _, title, query in panels() if not excused(title, query))

            try:
                wait(all_there)
            except TimeoutError:
                missing = [key for key, value in found.items() if not value and not excused(*key)]
                raise AssertionError(f"no data for {missing}") from None
            yield server, found


def excused(title: str, query: str) -> bool:
    return any((title, name) in NOT_HERE for name in named(query))


@pytest.mark.long
@pytest.mark.parametrize(("board", "title", "query"), panels(), ids=lambda value: str(value)[:40])
def test_every_panel_has_data(board: str, title: str, query: str, asked: Asked) -> None:
    server, found = asked
    assert server.ask("query", query=filled(query))["resultType"] == "vector"
    assert found[title, query] or excused(title, query), NOT_HERE


@pytest.mark.long
def test_the_variables_have_values(asked: Asked) -> None:
    server, _ = asked
    seen = set()
    for path in BOARDS:
        for variable in json.loads(path.read_text("utf-8"))["templating"]["list"]:
            if variable["type"] == "query":
                asks = re.fullmatch(r"label_values\((.*), (\w+)\)", filled(variable["query"]))
                assert asks, variable
                seen.add(variable["name"])
                assert server.ask(f"label/{asks[2]}/values", **{"match[]": asks[1]}), variable["query"]
    assert seen == {"job", "instance", "model", "sensor"}


@pytest.mark.long
def test_the_rules_are_evaluated(asked: Asked) -> None:
    server, _ = asked
    rules = [rule for group in server.ask("rules")["groups"] for rule in group["rules"]]
    assert [rule for rule in rules if rule["health"] == "err"] == []
    recorded = [rule["name"] for rule in rules if rule["type"] == "recording"]
    assert recorded
    wait(lambda: all(server.ask("query", query=name)["result"] for name in recorded))


def test_queries_name_metrics_that_exist() -> None:
    known = on_the_page()
    rules = "".join(path.read_text("utf-8") for path in (RULES / "recording.yml", RULES / "alerts.yml"))
    assert named(rules) - known == set()
    for board, title, query in panels():
        assert named(query) or "up{" in query, (board, title)
        assert named(query) - known == set(), (board, title)
    assert {name for _, name in NOT_HERE} - known == set()


def test_panels_say_what_they_show() -> None:
    for path in BOARDS:
        board = json.loads(path.read_text("utf-8"))
        shown = [panel for panel in board["panels"] if panel["type"] != "row"]
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
        for panel in shown:
            assert panel["description"], panel["title"]
            assert panel["datasource"]["uid"] == "${datasource}"
            if panel["type"] != "heatmap":
                assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_the_dashboards_are_what_their_script_writes(tmp_path: Path) -> None:
    script = DEPLOY / "grafana" / "make.py"
    subprocess.run([sys.executable, script, tmp_path], check=True, timeout=60)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {p.name: p.read_text() for p in BOARDS}


@pytest.mark.parametrize(
    "command",
    [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "recording.yml", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ],
    ids=" ".join,
)
def test_promtool_finds_no_fault(command: list[str]) -> None:
    done = subprocess.run([need("promtool"), *command], cwd=RULES, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_says_what_to_do_and_is_tested() -> None:
    text = (RULES / "alerts.yml").read_text("utf-8")
    tests = (RULES / "alerts_test.yml").read_text("utf-8")
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    alerts = dict(re.findall(r"- alert: (\w+)\n(.*?)(?=\n\n|\Z)", text, re.DOTALL))
    assert len(alerts) == text.count("- alert:")
    for name, rule in alerts.items():
        assert re.findall(r"^ +(summary|action|runbook):", rule, re.M) == ["summary", "action", "runbook"], name
        assert f"runbook: docs/operations.md#{name.lower()}\n" in f"{rule}\n"
        assert f"\n### {name}\n" in page
        raised = rf"alertname: {name}\n +exp_alerts:"
        assert re.search(raised, tests), f"{name} is never raised in alerts_test.yml"
