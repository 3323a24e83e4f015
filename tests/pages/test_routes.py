"""The pages' server side: what is served to whom, under which policy, and what is not."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from starlette.requests import Request

from streamer.engine.catalogue import resolve
from streamer.metrics import Metrics
from streamer.refusals import REFUSED, refused
from streamer.sensors.columns import ReadingBatch
from streamer.sensors.host import Sensors
from streamer.serve.pages.charts import Charts, find_charts
from streamer.serve.pages.files import PageFile
from streamer.serve.pages.routes import DOCUMENTS, MOST_SENSORS, PageRoutes
from streamer.serve.pages.sensors import FRESH_SECONDS, WALKS, Order, SensorPage, SensorWalks
from streamer.settings import Settings
from tests.daemon.running import Running, daemon
from tests.daemon.tenants import bearer, give

STATIC = Path(__file__).resolve().parents[2] / "streamer" / "serve" / "pages" / "static"
START, STEP = 1_790_000_000, 60
BROWSER = {
    "Accept": "text/html,application/xhtml+xml,*/*;q=0.8",
    "Sec-Fetch-Site": "none",
    "Sec-Fetch-Mode": "navigate",
}


class Secrets(dict[str, str]):
    running: Running


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secrets]:
    folder = tmp_path_factory.mktemp("routes")
    (folder / "state").mkdir()
    found = Secrets({name: give(folder / "state", name, "read", "write") for name in ("alice", "bob")})
    found["speaker"] = give(folder / "state", "speaker", "stream")
    with daemon(folder, resolve("digits"), resolve("forecast-online"), max_shown_readings=8) as running:
        found.running = running
        for name, count, value in (("pump", 20, 5.0), ("Tank-1", 1, 1.0), ("tank-2", 1, 1.0)):
            lines = (json.dumps({"id": name, "time": START + STEP * at, "value": value + at}) for at in range(count))
            body = "\n".join(lines).encode()
            assert running.ask("POST", "/v1/readings?forecast=1", body, bearer(found["alice"])).status == 200
        yield found


def ask(tenants: Secrets, who: str, path: str) -> Any:
    answer = tenants.running.ask("GET", path, headers=bearer(tenants[who]))
    assert answer.status == 200, answer.text
    return json.loads(answer.text)


# -- documents and files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCUMENTS)
def test_documents_need_no_token_and_have_a_strict_policy(tenants: Secrets, path: str) -> None:
    answer = tenants.running.ask("GET", path, headers=BROWSER)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    rules = dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))
    assert (rules["default-src"], rules["script-src"], rules["style-src"]) == ("'none'", "'self'", "'self'")
    assert (rules["connect-src"], rules["base-uri"], rules["frame-ancestors"]) == ("'self'", "'none'", "'none'")
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert ("require-trusted-types-for" in rules) == (path != "/forecasts")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["permissions-policy"].startswith("microphone=(self)")


def test_whoever_is_no_browser_gets_text(tenants: Secrets) -> None:
    for accept in ({}, {"Accept": "*/*"}, {"Accept": "text/plain"}):
        answer = tenants.running.ask("GET", "/", headers=accept)
        assert answer.text.startswith("streamer: stateful streaming inference")


def test_pages_can_be_turned_off(toy: Path, tmp_path: Path) -> None:
    with daemon(tmp_path, toy, pages=False) as running:
        assert running.ask("GET", "/", headers=BROWSER).text.startswith("streamer: ")
        for path in ("/forecasts", "/engine", "/pages/base.js", "/v1/engine", "/v1/sensor-list", "/v1/history/x"):
            assert running.ask("GET", path).status == 404


def test_a_file_is_sent_once_and_packed(tenants: Secrets) -> None:
    running = tenants.running
    plain = running.ask("GET", "/pages/base.css")
    assert plain.text == (STATIC / "base.css").read_text("utf-8")
    again = running.ask("GET", "/pages/base.css", headers={"If-None-Match": f'"x", W/{plain.headers["etag"]}'})
    assert (again.status, again.text) == (304, "")
    assert running.ask("GET", "/pages/base.css", headers={"If-None-Match": '"x"'}).status == 200
    for name in ("captions.html", "../routes.py", "..%2Froutes.py", "none.js"):
        assert running.ask("GET", f"/pages/{name}").status in (403, 404, 401)


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [
        ("gzip", True),
        ("br;q=1.0, GZIP ; q=0.5", True),
        ("*", True),
        ("", False),
        ("br", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000, *", False),
        ("*;q=0", False),
    ],
)
def test_a_file_is_packed_for_who_can_unpack_it(accepted: str, packed: bool) -> None:
    file = PageFile.of("a.css", b"body {}")
    answer = file.answer(Request({"type": "http", "headers": [(b"accept-encoding", accepted.encode())]}))
    assert (answer.headers.get("content-encoding") == "gzip") == packed
    assert (answer.body != b"body {}") == packed


class Parts(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.faults: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._inside = tag
        self.faults += [name for name in given if name == "style" or name.startswith("on")]
        self.links += [link for name in ("src", "href") if (link := given.get(name)) is not None]

    def handle_data(self, data: str) -> None:
        if self._inside in ("script", "style") and data.strip():
            self.faults.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


@pytest.mark.parametrize("name", sorted(DOCUMENTS.values()))
def test_documents_hold_no_script_no_style_and_no_foreign_address(name: str) -> None:
    parts = Parts((STATIC / name).read_text("utf-8"))
    assert parts.faults == []
    assert [link for link in parts.links if not link.startswith(("/", "#")) or link.startswith("//")] == []
    files = [link.removeprefix("/pages/") for link in parts.links if link.startswith("/pages/")]
    assert [file for file in files if not (STATIC / file).is_file()] == []


def test_scripts_make_no_markup_out_of_text() -> None:
    pattern = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|https?://")
    found = {path.name: pattern.findall(path.read_text("utf-8")) for path in STATIC.glob("*.js")}
    assert {name: what for name, what in found.items() if what} == {"microphone.js": ["http://"]}  # in a sentence


# -- charts ------------------------------------------------------------------------------------------------------------


def test_charts_come_from_the_installed_package() -> None:
    charts = find_charts()
    assert charts is not None
    assert charts.styles
    assert gzip.decompress(charts.file.packed) == charts.file.body
    assert len(charts.file.packed) < 2 * 2**20


def test_styles_of_the_library_are_found() -> None:
    digest = "0123456789abcdef" * 4
    assert Charts(b'x(document.getElementById("%s"),document.getElementById("y"))' % digest.encode()).styles == [digest]


# -- numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/engine", "/v1/sensor-list", "/v1/history/pump"])
def test_numbers_need_a_token_that_may_read(tenants: Secrets, path: str) -> None:
    assert tenants.running.ask("GET", path).status == 401
    assert tenants.running.ask("GET", path, headers=bearer(tenants["speaker"])).status == 403
    assert tenants.running.ask("POST", path, headers=bearer(tenants["alice"])).status in (403, 405)


def test_sensors_are_their_owners(tenants: Secrets) -> None:
    assert ask(tenants, "bob", "/v1/sensor-list") == {"total": 0, "matching": 0, "sensors": []}
    answer = tenants.running.ask("GET", "/v1/history/pump", headers=bearer(tenants["bob"]))
    assert answer.status == 404
    assert ask(tenants, "alice", "/v1/sensor-list")["total"] == 3


def test_sensors_by_search_order_and_page(tenants: Secrets) -> None:
    def names(query: str) -> list[str]:
        return [sensor["stream"] for sensor in ask(tenants, "alice", f"/v1/sensor-list?{query}")["sensors"]]

    assert names("") == ["Tank-1", "pump", "tank-2"]
    assert names("search=TANK") == ["Tank-1", "tank-2"]
    assert names("offset=1&limit=1") == ["pump"]
    assert names("order=recent")[0] == "tank-2"
    assert names("limit=0") == []
    (pump,) = ask(tenants, "alice", "/v1/sensor-list?search=pump")["sensors"]
    assert (pump["value"], pump["readings"], pump["model"], pump["step"]) == (24.0, 20, "forecast-online", STEP)
    for wrong in ("order=x", "limit=x", f"limit={MOST_SENSORS + 1}", "offset=-1", "limit=%C2%B2"):
        assert tenants.running.ask("GET", f"/v1/sensor-list?{wrong}", headers=bearer(tenants["alice"])).status == 400


def test_the_past_has_bands_for_as_many_readings_as_are_kept(tenants: Secrets) -> None:
    columns = ask(tenants, "alice", "/v1/history/pump")["targets"][""]
    assert columns["times"] == [START + STEP * at for at in range(20)]
    assert columns["values"] == [5.0 + at for at in range(20)]
    assert [low is None for low in columns["low"]] == [True] * 12 + [False] * 8  # max_shown_readings
    triples = zip(columns["low"][12:], columns["middle"][12:], columns["high"][12:], strict=True)
    assert all(low <= middle <= high for low, middle, high in triples)
    assert all(0 <= anomaly <= 1 for anomaly in columns["anomalies"][12:])
    assert len(ask(tenants, "alice", "/v1/history/pump?limit=5")["targets"][""]["values"]) == 5


def test_the_band_of_a_reading_is_what_was_forecast_before_it(tenants: Secrets) -> None:
    before = ask(tenants, "alice", "/v1/forecast/pump")
    body = json.dumps({"id": "pump", "time": START + STEP * 20, "value": 25.0}).encode()
    assert tenants.running.ask("POST", "/v1/readings?forecast=1", body, bearer(tenants["alice"])).status == 200
    past = ask(tenants, "alice", "/v1/history/pump")
    columns = past["targets"][""]
    said = [before["quantiles"][level][0] for level in past["levels"]]
    assert [columns[name][-1] for name in ("low", "middle", "high")] == pytest.approx(said, rel=1e-3)


def test_a_library_of_charts_that_could_not_be_read_is_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Charts | OSError | None] = [OSError("no more descriptors"), None, Charts(b"x")]

    def find() -> Charts | None:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr("streamer.serve.pages.routes.find_charts", find)

    async def main() -> None:
        routes = PageRoutes("", Sensors(Settings(), Metrics()), CollectorRegistry())
        with pytest.raises(OSError, match="descriptors"):
            await routes._find_charts()
        assert await routes._find_charts() is None
        found = await routes._find_charts()
        assert found is not None
        assert await routes._find_charts() is found

    asyncio.run(main())


def test_pages_that_ask_together_share_a_walk_over_the_sensors(tmp_path: Path) -> None:
    now = 0.0
    sensors = Sensors(Settings(state_directory=tmp_path, max_sensors=20, lanes=1), Metrics(CollectorRegistry()))
    sensors.load([resolve("forecast-online")])
    (fleet,) = sensors.fleets.values()
    shown = SensorWalks(lambda: now)

    def wrote(*names: str) -> None:
        batch = ReadingBatch(names, np.zeros(len(names)), np.ones(len(names)))
        fleet.write(batch, answer=True).forecasts.result(60)

    def total(owner: str = "", search: str = "", order: Order = "name") -> tuple[int, int]:
        found = shown.page([fleet], owner, SensorPage(search, order, 0, 10))
        assert len(found["sensors"]) == found["matching"]
        return found["total"], found["matching"]

    try:
        wrote("a", "b")
        assert total() == (2, 2)
        wrote("c")
        assert total(search="B") == (2, 1)
        assert total(order="recent") == (3, 3)
        assert total("somebody") == (0, 0)
        now += FRESH_SECONDS
        assert total() == (3, 3)
        for owner in range(2 * WALKS):
            assert total(str(owner)) == (0, 0)
        assert len(shown._walks) == WALKS
    finally:
        sensors.close()


def test_the_engine_in_numbers(tenants: Secrets) -> None:
    assert tenants.running.ask("POST", "/v1/readings", b'{"id": "x"}', bearer(tenants["alice"])).status == 400
    page = ask(tenants, "alice", "/v1/engine")
    assert {sample["labels"]["model"] for sample in page["metrics"]["lanes"]} == {"digits"}
    assert page["metrics"]["readings_total"] == [{"labels": {"protocol": "http"}, "value": pytest.approx(22, abs=1)}]
    sizes = {each["labels"]["model"]: each for each in page["histograms"]["batch_size"]}
    assert sizes["forecast-online"]["count"] >= 22
    assert sizes["forecast-online"]["buckets"]["+Inf"] == sizes["forecast-online"]["count"]
    assert {"what": "readings not taken", "reason": "body", "count": 1} in page["refused"]
    assert page["refused"] == [
        {"what": REFUSED[name.removesuffix("_total")], "reason": sample["labels"]["reason"], "count": sample["value"]}
        for name, samples in page["metrics"].items()
        if name.removesuffix("_total") in REFUSED
        for sample in samples
    ]


def test_a_refused_stream_is_counted_once() -> None:
    samples = [("refusals", "overload", 3), ("bad_input", "overload", 3), ("bad_input", "frame", 2)]
    assert refused([*samples, ("evictions", "idle", 0), ("readings", "http", 9)]) == {
        ("refusals", "overload"): 3,
        ("bad_input", "frame"): 2,
    }
