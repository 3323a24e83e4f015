"""Debian's Chromium, with a recording for a microphone, and a watch over what a page asks for and complains of."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserType, Page, sync_playwright

CHROMIUM = shutil.which("chromium")
PATIENCE = 60_000  # milliseconds for what a busy machine does sooner or later
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


def need_chromium() -> str:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    return CHROMIUM


def launch(kind: BrowserType, *arguments: str) -> Browser:
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    return kind.launch(executable_path=need_chromium(), args=[*arguments, *sandbox])


@contextlib.contextmanager
def chromium(sound: Path) -> Iterator[Browser]:
    """``sound``: a WAV file that is spoken into the microphone, once, from when it is opened."""
    need_chromium()
    arguments = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    with sync_playwright() as playwright:
        browser = launch(playwright.chromium, *arguments, f"--use-file-for-fake-audio-capture={sound}%noloop")
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def watched(browser: Browser, url: str, *expected: str, **context: Any) -> Iterator[Page]:
    """A page whose console stays silent and which asks nobody but the daemon at ``url``. ``expected``: parts of
    complaints that the test is about."""
    opened = browser.new_context(base_url=url, **context)
    opened.set_default_timeout(PATIENCE)
    page, faults = opened.new_page(), list[str]()

    def complained(text: str) -> None:
        if not any(part in text for part in expected):
            faults.append(text)

    def asked(address: str) -> None:
        if not address.startswith((url + "/", "data:", f"blob:{url}/")):
            faults.append(f"a request to {address}")

    page.on("console", lambda message: complained(message.text))
    page.on("pageerror", lambda error: complained(str(error)))
    page.on("request", lambda request: asked(request.url))
    page.on("websocket", lambda socket: asked(socket.url.replace("ws:", "http:", 1)))
    page.on("dialog", lambda dialog: (complained(f"a dialog: {dialog.message}"), dialog.accept()))
    try:
        yield page
        assert not faults, faults
    finally:
        opened.close()
