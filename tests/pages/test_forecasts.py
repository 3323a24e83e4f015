"""The page of forecasts in a real browser: thousands to pick from, one that goes on, and names that are no markup."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from streamer.engine.catalogue import resolve
from tests.daemon.running import Running, daemon
from tests.pages.browser import PATIENCE, watched
from tests.plants import toy_plant

pytestmark = pytest.mark.long

expect.set_options(PATIENCE)
MARKUP = '<img src=x onerror="alert(1)">'
STEP, START, COUNT = 600, 1_790_000_000, 60
MANY = 2000  # sensors of one reading, beside those that have a past


def post(running: Running, *readings: tuple[str, int, float]) -> None:
    lines = (json.dumps({"id": name, "time": START + STEP * at, "value": value}) for name, at, value in readings)
    answer = running.ask("POST", "/v1/readings", "\n".join(lines).encode())
    assert (answer.status, json.loads(answer.text)["refused"]) == (200, 0)


def wave(at: int) -> float:
    return 20 + 5 * math.sin(at / 9)


@pytest.fixture(scope="module")
def plants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with daemon(tmp_path_factory.mktemp("plants"), resolve("forecast-online"), max_sensors=MANY + 10) as running:
        known = ("pump-7", "pump[8]*", MARKUP, "</script><script>alert(2)</script>")
        post(running, *((name, at, wave(at)) for at in range(COUNT) for name in known))
        post(running, ("pump-7", COUNT, 900.0))  # an anomaly
        for first in range(0, MANY, 500):
            post(running, *((f"tank-{number:04}", COUNT, 1.0) for number in range(first, first + 500)))
        yield running


@pytest.fixture
def page(browser: Browser, plants: Running) -> Iterator[Page]:
    with watched(browser, f"http://127.0.0.1:{plants.port}") as page:
        page.goto("/forecasts")
        page.locator("#sensors button").first.wait_for()
        yield page


def pick(page: Page, search: str) -> None:
    page.get_by_label("Search").fill(search)
    expect(page.locator("#sensors .name").first).to_contain_text(search)
    page.locator("#sensors button").first.click()
    expect(page.locator("#name")).to_contain_text(search)


def test_thousands_are_searched_paged_and_ordered(page: Page) -> None:
    expect(page.locator("#count")).to_have_text(f"{MANY + 4:,} sensors")
    assert page.locator("#sensors button").count() == 50
    page.get_by_role("button", name="After").click()
    expect(page.locator("#range")).to_have_text("51 to 100")
    page.get_by_label("Search").fill("TANK-199")  # whatever the case
    expect(page.locator("#count")).to_have_text(f"10 of {MANY + 4:,} sensors")
    expect(page.locator("#sensors .name").first).to_have_text("tank-1990")
    page.get_by_label("Search").fill("")
    page.get_by_label("Order").select_option("anomaly")
    expect(page.locator("#sensors .name").first).to_have_text("pump-7")
    expect(page.locator("#sensors .note").first).to_contain_text("anomaly")


def test_a_sensor_has_history_fan_band_anomaly_and_record(page: Page) -> None:
    pick(page, "pump-7")
    expect(page.locator("#chart")).to_have_attribute("data-readings", f"{COUNT + 1}")
    expect(page.locator("#chart .main-svg").first).to_be_visible()
    traces = page.evaluate(
        """document.getElementById("chart").data.map(t =>
        ({mode: t.mode, fill: t.fill ?? "", count: t.y.filter(y => y !== null).length}))"""
    )
    assert traces[0]["count"] == traces[1]["count"] == COUNT  # what was said before the first reading is nothing
    assert len([trace for trace in traces if trace["fill"] == "tonexty"]) == 1 + 3  # the band, and pairs of quantiles
    assert traces[-1]["count"] == 1
    assert traces[-2]["count"] == COUNT + 1
    expect(page.locator("#summary")).to_contain_text("anomaly")
    expect(page.locator("#record tbody tr")).not_to_have_count(0)
    expect(page.locator("#tiles")).to_contain_text("Inside 90 % band")
    page.get_by_text("The forecast in numbers").click()
    expect(page.locator("#steps tbody tr")).to_have_count(24)


@pytest.mark.parametrize("name", ["pump[8]*", MARKUP])
def test_readings_move_the_page_whatever_the_name(page: Page, plants: Running, name: str) -> None:
    pick(page, name)
    expect(page.locator("#live")).to_have_text("live")
    for at, value in ((COUNT, 123.4), (COUNT + 1, 321.5)):
        post(plants, (name, at, value))
        expect(page.locator("#tiles dd").first).to_have_text(f"{value}")
    last = "(d => [d.at(-2).y.at(-1), d.at(0).y.at(-1) !== null])(document.getElementById('chart').data)"
    expect(page.locator("#summary")).to_contain_text("321.5")
    expect(page.locator("#chart")).to_have_attribute("data-readings", f"{COUNT + 2}")
    assert page.evaluate(last) == [321.5, True]


def test_names_are_no_markup(page: Page) -> None:
    for name in (MARKUP, "</script><script>alert(2)</script>"):
        pick(page, name)
        assert page.locator("#name").text_content() == name
    assert page.locator("main img").count() == 0
    assert page.locator("main script").count() == 0


def test_a_link_leads_to_a_sensor(page: Page, plants: Running) -> None:
    pick(page, MARKUP)
    address = page.evaluate("location.href")
    page.goto("/engine")
    page.goto(address)
    expect(page.locator("#name")).to_have_text(MARKUP)


def test_arrows_move_through_the_list(page: Page) -> None:
    page.get_by_label("Search").fill("tank-19")
    expect(page.locator("#sensors .name").first).to_have_text("tank-1900")
    page.get_by_label("Search").press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#name")).to_have_text("tank-1901")
    expect(page.locator("#sensors [aria-current]")).to_contain_text("tank-1901")


def test_a_plant_is_shown_target_by_target(browser: Browser, tmp_path: Path) -> None:
    with daemon(tmp_path / "daemon", toy_plant(tmp_path), sensor_step=3600) as running:

        def row(at: int) -> None:
            line = json.dumps(
                {"id": "north", "time": START + 3600 * at, "inflow": 1, "outflow": 2 + at, "level": 30 + at}
            )
            assert running.ask("POST", "/v1/readings?forecast=1", line.encode()).status == 200

        for at in range(5):
            row(at)
        with watched(browser, f"http://127.0.0.1:{running.port}") as page:
            found = json.loads(running.get("/v1/sensor-list?search=h.LEVEL")[1])
            assert (found["total"], [sensor["target"] for sensor in found["sensors"]]) == (2, ["level"])
            page.goto("/forecasts")
            pick(page, "north.level")
            expect(page.locator("#live")).to_have_text("live")
            row(5)
            expect(page.locator("#tiles dd").first).to_have_text("35")
            page.get_by_label("Target").select_option("outflow")
            expect(page.locator("#name")).to_have_text("north.outflow")
            expect(page.locator("#tiles dd").first).to_have_text("7")
            expect(page.locator("#chart")).to_have_attribute("data-readings", "6")
            columns = json.loads(running.get("/v1/history/north")[1])["targets"]["outflow"]
            assert columns["values"] == [2, 3, 4, 5, 6, 7]
            # what the toy says of the next step: the last value, and 0.01 for each row that was run
            middle = [2 + at + 0.01 * (at + 1) for at in range(5)]
            assert columns["middle"][0] is None
            assert columns["middle"][1:] == pytest.approx(middle, rel=1e-4)


def test_without_the_charts_the_page_says_so_and_the_rest_works(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "plotly.py").write_text("", "utf-8")  # found first, and holds no library
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hidden"), prepend=":")
    with daemon(tmp_path / "daemon", resolve("forecast-online")) as running:
        post(running, *(("pump", at, wave(at)) for at in range(20)))
        with watched(browser, f"http://127.0.0.1:{running.port}") as page:
            page.goto("/forecasts")
            pick(page, "pump")
            expect(page.locator("#no-charts")).to_contain_text("streamer[pages]")
            expect(page.locator("#chart")).to_be_hidden()
            expect(page.locator("#record tbody tr")).not_to_have_count(0)
        assert running.ask("GET", "/pages/plotly.min.js").status == 404


def test_charts_that_did_not_come_are_asked_for_again(browser: Browser, plants: Running) -> None:
    asked = 0

    def answer(route: Route) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            route.abort()
        else:
            route.continue_()

    with watched(browser, f"http://127.0.0.1:{plants.port}", "ERR_FAILED") as page:
        page.clock.install()
        page.route("**/pages/charts.json", answer)
        page.goto("/forecasts")
        pick(page, "pump-7")
        expect(page.locator("#no-charts")).to_be_visible()
        page.clock.fast_forward(11_000)  # the scores come meanwhile, and it is drawn again
        expect(page.locator("#chart")).to_have_attribute("data-readings", f"{COUNT + 1}")
        assert asked == 2


def test_a_sensor_of_the_same_name_in_another_model_is_another(browser: Browser, tmp_path: Path) -> None:
    plants = [toy_plant(tmp_path, name=name) for name in ("plant", "works")]
    with daemon(tmp_path / "daemon", *plants) as running:

        def say(model: str, at: int, level: float) -> None:
            row = {"id": "north", "time": START + STEP * at, "inflow": 1, "outflow": 1, "level": level}
            assert running.ask("POST", f"/v1/readings?model={model}", json.dumps(row).encode()).status == 200

        say("plant", 0, 1.5)
        with watched(browser, f"http://127.0.0.1:{running.port}") as page:
            page.goto("/forecasts")
            pick(page, "north.level")
            expect(page.locator("#live")).to_have_text("live")
            say("works", 1, 7.5)
            say("plant", 2, 2.5)
            expect(page.locator("#summary")).to_contain_text("2.5")
            expect(page.locator("#chart")).to_have_attribute("data-readings", "2")


def test_after_a_restart_the_past_is_there(browser: Browser, tmp_path: Path) -> None:
    with daemon(tmp_path, resolve("forecast-online")) as running:
        post(running, *(("pump", at, wave(at)) for at in range(COUNT)))
        running.stop()
    with daemon(tmp_path, resolve("forecast-online")) as running:
        post(running, ("pump", COUNT, wave(COUNT)))
        columns = json.loads(running.get("/v1/history/pump")[1])["targets"][""]
        assert columns["times"] == [START + STEP * at for at in range(COUNT + 1)]
        assert columns["values"] == pytest.approx([wave(at) for at in range(COUNT + 1)], rel=1e-5)
