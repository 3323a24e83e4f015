"""The fenced blocks of the documents, and what a machine like this one can't do of them."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from typing import NamedTuple

from tests.cli.command import ROOT

__all__ = ["BLOCKS", "ELSEWHERE", "NOT_HERE", "PageBlock", "help_of", "lines", "reason", "unknown_options"]

CARDS = sorted((ROOT / "models" / "pretrained").glob("*.md"))
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "deploy" / "README.md", *CARDS]


class PageBlock(NamedTuple):
    page: str
    language: str
    text: str
    line: int

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def _blocks() -> list[PageBlock]:
    found = []
    for path in PAGES:
        text = path.read_text("utf-8")
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S):
            line = text[: match.start()].count("\n") + 1
            found.append(PageBlock(str(path.relative_to(ROOT)), match[1], match[2], line))
    return found


BLOCKS = _blocks()

#: Pages whose Python and plain blocks (what a program says) are run and compared by a test of their own.
ELSEWHERE = {
    "docs/own-model.md": "tests/test_own_model.py",
    "docs/adopt.md": "tests/export/adopt/test_page.py",
    "docs/design.md": "tests/test_design.py",
}

#: Commands that are not run here, by how they begin, and why. The first that fits counts.
NOT_HERE = {
    r"pip (install|download) ": "the network",
    r"(sudo |systemctl |journalctl |install -|python3 -m venv /opt/|/opt/)": "root, and folders of the system",
    r"promtool ": "tests/deploy/test_kit.py",
    r"streamer listen": "a microphone: tests/cli/test_microphone.py",
    r"streamer serve": "without an end: the daemon that the others of the page ask is one",
    r"STREAMER_\w+=\S+ streamer serve": "without an end: tests/serve",
    r"python -m models.speech.(whisper|reread) ": "a corpus: tests/models/test_transformer.py, test_grow.py there",
    r"python -m models.training.mix ": "two trained runs: tests/models/test_acoustic.py there",
    r"python -m (models|bench) ": "minutes to days; its words and options are checked",
    r"python -m export runs/": "a trained run; its words and options are checked",
    r"streamer check mine.onnx": "a trained run",
    r".*--revise|mkdir -p whisper|cat parts/|for name in config.json": "Whisper: tests/streams/test_whisper.py",
    r"streamer adopt sherpa-onnx": "a download: tests/export/adopt",
    r"streamer token add alice": "tests/cli/test_token.py",
    r".*(http|wss)://host:8765": "certificates and a name: tests/daemon/test_tls.py, tests/daemon/test_tokens.py",
    r"curl .*(@plant.csv|forecast/north)": "a model of a plant: tests/daemon/test_plants.py",
    r"streamer export my_module.py": "tests/cli/test_examples.py",
}


def lines(block: PageBlock) -> list[str]:
    """Commands, each without its comment."""
    joined = block.text.replace("\\\n", " ")
    found = [re.sub(r"\s+#\s.*", "", line).strip() for line in joined.splitlines()]
    return [line for line in found if line and not line.startswith("#")]


def reason(line: str) -> str | None:
    """Why it is not run here."""
    return next((why for pattern, why in NOT_HERE.items() if re.match(pattern, line)), None)


@functools.cache
def help_of(*words: str) -> str:
    command = [sys.executable, "-m", *words, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def unknown_options(options: list[str], text: str) -> list[str]:
    return [option for option in options if not re.search(rf"(?<![\w-]){option}(?![\w-])", text)]
