"""Pages whose daemon was away, was started again, lets nobody in, or takes long to answer."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Route, expect

from streamer.engine.catalogue import resolve
from tests.daemon.running import Running, daemon
from tests.daemon.tenants import give
from tests.pages.browser import PATIENCE, watched

pytestmark = pytest.mark.long

expect.set_options(PATIENCE)
#: What the browser itself says of a request that fails, or that the daemon refuses.
REFUSED = "Failed to load resource", "WebSocket connection to"
START = 1_790_000_000


def post(running: Running, *values: float, first: int = 0) -> None:
    lines = (
        json.dumps({"id": "pump", "time": START + 60 * at, "value": value}) for at, value in enumerate(values, first)
    )
    assert running.ask("POST", "/v1/readings", "\n".join(lines).encode()).status == 200


def test_a_sensor_goes_on_after_the_daemon_was_away(browser: Browser, tmp_path: Path) -> None:
    model = resolve("forecast-online")
    with daemon(tmp_path, model) as running:
        url, port = f"http://127.0.0.1:{running.port}", running.port
        with watched(browser, url, *REFUSED) as page:
            post(running, *range(10))
            page.goto("/forecasts#sensor=pump")
            expect(page.locator("#live")).to_have_text("live")
            with page.expect_event("requestfailed", lambda request: "/v1/history/" in request.url):
                running.stop(signal.SIGKILL)
            with daemon(tmp_path, model, port=port) as again:
                expect(page.locator("#live")).to_have_text("live")
                post(again, 123.4, first=10)
                expect(page.locator("#tiles dd").first).to_have_text("123.4")


def test_a_dialog_that_was_closed_stays_closed(browser: Browser, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    give(state, "alice", "read")
    with (
        daemon(tmp_path, resolve("digits")) as running,
        watched(browser, f"http://127.0.0.1:{running.port}", *REFUSED) as page,
    ):
        page.goto("/engine")
        page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        for _ in range(2):
            page.wait_for_event("response", lambda answer: "/v1/engine" in answer.url and answer.status == 401)
        expect(page.get_by_role("alert")).to_contain_text("token is needed")
        assert page.get_by_role("dialog").count() == 0
        page.get_by_role("button", name="Token").click()
        expect(page.get_by_role("dialog")).to_be_visible()


def test_counters_that_begin_again_are_no_negative_rates(browser: Browser, url: str) -> None:
    def numbers(readings: int) -> dict[str, Any]:
        count = {"readings_total": [{"labels": {}, "value": readings}]}
        none = {"lag_seconds": [], "batch_size": [], "run_seconds": []}
        return {"metrics": count, "histograms": none, "refused": []}

    said = iter([5000, 10])
    with watched(browser, url) as page:
        page.route("**/v1/engine", lambda route: route.fulfill(json=numbers(next(said, 12))))
        page.route("**/v1/models", lambda route: route.fulfill(json={"models": []}))
        page.goto("/engine")
        for _ in range(3):
            page.wait_for_event("response", lambda answer: "/v1/engine" in answer.url)
            expect(page.locator("#tiles dt").first).to_be_visible()
            assert "-" not in page.locator("#tiles").inner_text()


def test_a_daemon_that_takes_long_is_asked_once_at_a_time(browser: Browser, url: str) -> None:
    waiting: list[Route] = []
    with watched(browser, url, *REFUSED) as page:
        page.clock.install()
        page.route("**/v1/engine", lambda route: waiting.append(route))  # a built-in can't be marked
        with page.expect_request("**/v1/engine"):
            page.goto("/engine")
        with page.expect_request("**/v1/sessions"):  # the page's clock goes on: six seconds, three looks
            page.clock.fast_forward(7000)
        page.clock.run_for(7000)
        assert len(waiting) == 1
        waiting[0].abort()


def test_a_microphone_is_closed_where_no_stream_begins(browser: Browser, url: str) -> None:
    with watched(browser, url) as page:
        page.add_init_script(
            "sessionStorage.setItem('streamer.token', 'a,b');"  # no subprotocol of a WebSocket may hold a comma
            "const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);"
            "navigator.mediaDevices.getUserMedia = async wish => (window.given = await real(wish));"
        )
        page.goto("/")
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_role("alert")).to_contain_text("subprotocol")
        page.wait_for_function("given.getTracks().every(track => track.readyState === 'ended')")


def test_a_microphone_is_closed_where_there_is_no_sound_system(browser: Browser, url: str) -> None:
    with watched(browser, url) as page:
        page.add_init_script(
            "const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);"
            "navigator.mediaDevices.getUserMedia = async wish => (window.given = await real(wish));"
            "window.AudioContext = class { constructor() { throw new Error('too many of them'); } };"
        )
        page.goto("/")
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_role("alert")).to_contain_text("too many of them")
        page.wait_for_function("given.getTracks().every(track => track.readyState === 'ended')")
