"""Every page: with a keyboard, to a screen reader, on a phone, in the dark."""

from __future__ import annotations

import json
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.daemon.running import Running
from tests.pages.browser import PATIENCE, PHONE, watched

pytestmark = pytest.mark.long

expect.set_options(PATIENCE)
PAGES = ("/", "/forecasts", "/engine")
DESKTOP = {"viewport": {"width": 1280, "height": 900}}
READY = {"/": "#start:enabled", "/forecasts": "#record tbody tr", "/engine": "#models section"}


@pytest.fixture(scope="module", autouse=True)
def sensors(served: Running) -> None:
    lines = (json.dumps({"id": "pump", "time": 1_790_000_000 + 60 * at, "value": at % 7}) for at in range(40))
    assert served.ask("POST", "/v1/readings", "\n".join(lines).encode()).status == 200


def visit(page: Page, path: str) -> None:
    page.goto(f"{path}#sensor=pump" if path == "/forecasts" else path)
    page.locator(READY[path]).first.wait_for()


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing(browser: Browser, url: str, path: str, scheme: str, device: dict[str, Any]) -> None:
    with watched(browser, url, color_scheme=scheme, **device) as page:
        visit(page, path)
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("width", [320, 390, 768])
def test_nothing_is_wider_than_the_screen(browser: Browser, url: str, path: str, width: int) -> None:
    with watched(browser, url, viewport={"width": width, "height": 800}, is_mobile=True, has_touch=True) as page:
        visit(page, path)
        assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("path", PAGES)
def test_the_dark_page_is_dark(browser: Browser, url: str, path: str) -> None:
    with watched(browser, url, color_scheme="dark") as page:
        visit(page, path)
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 20, 23)"


@pytest.mark.parametrize("path", PAGES)
def test_every_control_is_reached_with_the_tab_key(browser: Browser, url: str, path: str) -> None:
    with watched(browser, url) as page:
        visit(page, path)
        shown = page.locator("a, button, select, input, summary").filter(visible=True)
        wanted = set(shown.evaluate_all("all => all.filter(e => !e.disabled).map(e => e.id || e.textContent)"))
        reached = set()
        for _ in range(60):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        assert wanted - reached == set()


def test_a_keyboard_starts_and_stops_captions(browser: Browser, url: str) -> None:
    with watched(browser, url) as page:
        visit(page, "/")
        page.get_by_role("button", name="Start").focus()
        page.keyboard.press("Space")
        expect(page.get_by_role("status").first).to_have_text("Listens.")
        page.keyboard.press("Enter")
        expect(page.get_by_role("status").first).to_have_text("Done.")


def test_the_engine_page_shows_models_streams_and_refusals(browser: Browser, url: str, served: Running) -> None:
    rows = b"\0" * 16_000
    assert served.ask("POST", "/v1/streams/mine?model=digits", rows).status == 400  # JSON is expected
    headers = {"Content-Type": "application/octet-stream"}
    assert served.ask("POST", "/v1/streams/mine?model=digits", rows, headers).status == 200
    assert served.ask("POST", "/v1/streams/other?model=none", b"[1]").status == 404
    with watched(browser, url) as page:
        visit(page, "/engine")
        digits = page.locator("[data-model=digits]")
        for text in ("Lanes", "Lag, 95 of 100", "Largest batch", "Load", "batch of 1"):
            expect(digits).to_contain_text(text)
        expect(page.locator("[data-model=forecast-online]")).to_contain_text("Sensors")
        expect(page.locator("#streams")).to_contain_text("mine")
        expect(page.locator("#refusals")).to_contain_text("streams refused: unknown_model")
        page.get_by_role("button", name="Hold still").press("Enter")
        expect(page.get_by_role("button", name="Hold still")).to_have_attribute("aria-pressed", "true")
