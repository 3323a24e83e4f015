from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
from playwright.sync_api import Browser

from streamer.engine.catalogue import resolve
from tests.daemon.running import Running, daemon
from tests.pages.browser import chromium

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def digits_wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped sample, as a fake microphone takes it."""
    path = tmp_path_factory.mktemp("sound") / "digits.wav"
    samples, rate = soundfile.read(ROOT / "samples" / "digits.flac", dtype="int16")
    soundfile.write(path, samples, rate, "PCM_16")
    return path


@pytest.fixture(scope="module")
def browser(digits_wav: Path) -> Iterator[Browser]:
    """Of a module: while Playwright runs, no other test may use the thread's event loop."""
    with chromium(digits_wav) as browser:
        yield browser


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    models = (resolve("digits"), resolve("forecast-online"))
    with daemon(tmp_path_factory.mktemp("pages"), *models, checkpoint_seconds=0.2) as running:
        yield running


@pytest.fixture(scope="module")
def url(served: Running) -> str:
    return f"http://127.0.0.1:{served.port}"
