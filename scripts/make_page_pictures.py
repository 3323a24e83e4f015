"""Makes the pictures of docs/pages.md: ``python scripts/make_page_pictures.py``. Needs Chromium and the extra dev."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import soundfile
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "pictures" / "pages"
DESKTOP = {"viewport": {"width": 1280, "height": 1000}}
PHONE = {"viewport": {"width": 390, "height": 1500}, "device_scale_factor": 1.5, "is_mobile": True, "has_touch": True}
LOOKS = (("light", DESKTOP, "light"), ("phone", PHONE, "dark"))
SPEAK = "%noloop"


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sound, rate = soundfile.read(ROOT / "samples" / "english.opus", dtype="int16")
        soundfile.write(folder / "speech.wav", sound, rate, "PCM_16")
        models = [argument for model in ("english", "digits", "forecast-universal") for argument in ("--model", model)]
        command = [sys.executable, "-m", "streamer", "serve", *models, "--port", "0", "--port-file", f"{folder}/port"]
        environment = os.environ | {"STREAMER_STATE_DIRECTORY": f"{folder}/state", "PYTHONPATH": str(ROOT)}
        daemon = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        try:
            url = ready(daemon, folder / "port")
            send(url)
            with sync_playwright() as playwright:
                speech = f"--use-file-for-fake-audio-capture={folder}/speech.wav{SPEAK}"
                arguments = [
                    "--use-fake-ui-for-media-stream",
                    "--use-fake-device-for-media-stream",
                    "--no-sandbox",
                    speech,
                ]
                browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
                for look in LOOKS:
                    take(browser, url, *look)
                browser.close()
        finally:
            daemon.kill()
            daemon.wait()


def ready(daemon: subprocess.Popen[bytes], port: Path) -> str:
    """Wait until the daemon is ready; returns its URL."""
    while daemon.poll() is None:
        with contextlib.suppress(OSError):  # not listening, or 503
            url = f"http://127.0.0.1:{port.read_text().strip()}"
            urllib.request.urlopen(f"{url}/readyz", timeout=10).close()
            return url
        time.sleep(0.2)
    raise SystemExit("the daemon did not start")


def send(url: str) -> None:
    """Send four weeks of the shipped sample, and readings of 240 pumps, one of which has an anomaly."""
    lines: list[dict[str, object]] = []
    with (ROOT / "samples" / "sensor.csv").open() as file:
        for row in csv.DictReader(file):
            moment = datetime.fromisoformat(row["time"]).replace(tzinfo=UTC).timestamp()
            for column in ("temperature", "humidity"):
                value = float(row[column]) if row[column] else None
                lines.append({"id": f"greenhouse.{column}", "time": moment, "value": value})
    end, chance = float(lines[-1]["time"]), random.Random(1)  # type: ignore[arg-type]
    lines[-40 * 2]["value"] = 31.0
    for number in range(240):
        for at in range(96):
            odd = 14.0 if number == 17 and at == 95 else 0.0
            value = 48 + number % 9 + 4 * math.sin(at / 24 * 2 * math.pi + number) + chance.gauss(0, 0.6) + odd
            lines.append(
                {
                    "id": f"hall-{number // 24}.pump-{number % 24:02}",
                    "time": end - 3600 * (95 - at),
                    "value": round(value, 2),
                }
            )
    lines.sort(key=lambda line: float(line["time"]))  # type: ignore[arg-type]
    for first in range(0, len(lines), 4000):
        body = "\n".join(map(json.dumps, lines[first : first + 4000])).encode()
        request = urllib.request.Request(f"{url}/v1/readings", body, {"Content-Type": "application/x-ndjson"})
        urllib.request.urlopen(request, timeout=300).close()


def take(browser: Browser, url: str, name: str, device: dict[str, object], scheme: str) -> None:
    def opened() -> Page:
        page = browser.new_context(
            base_url=url, color_scheme=scheme, locale="en-GB", timezone_id="UTC", **device
        ).new_page()  # type: ignore[arg-type]
        page.set_default_timeout(120_000)
        return page

    captions, engine = opened(), opened()
    captions.goto("/")
    captions.get_by_role("button", name="Start").click()
    captions.locator("#captions .word").nth(16).wait_for()
    captions.screenshot(path=OUT / f"captions-{name}.png")
    engine.goto("/engine")
    engine.locator("#streams tbody tr").first.wait_for()
    engine.get_by_text("of the last 15 s").first.wait_for()
    engine.screenshot(path=OUT / f"engine-{name}.png")
    captions.context.close()
    engine.context.close()
    page = opened()
    page.goto("/forecasts")
    page.get_by_label("Search").fill("greenhouse")
    page.locator("#sensors button").nth(1).click()
    page.locator("#chart[data-readings]").wait_for()
    page.get_by_label("Search").fill("")
    page.locator("#sensors button").nth(40).wait_for()
    page.locator("body").click(position={"x": 2, "y": 2})  # removes the keyboard focus
    page.evaluate("scrollTo(0, 0)")
    if device is PHONE:
        page.evaluate("document.getElementById('detail').scrollIntoView()")
    page.screenshot(path=OUT / f"forecasts-{name}.png")
    page.context.close()


if __name__ == "__main__":
    main()
