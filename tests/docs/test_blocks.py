"""What the documents show is true: every block of code is run, or stands in a list that says why it is not."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import yaml

from streamer.engine.catalogue import resolve
from streamer.settings import Settings
from tests.cli.command import ROOT, environment
from tests.daemon.running import Running, daemon
from tests.docs.pages import BLOCKS, ELSEWHERE, NOT_HERE, PageBlock, help_of, lines, reason, unknown_options
from tests.rows import row_model

COMMANDS = [(block, line) for block in BLOCKS if block.language == "sh" for line in lines(block)]
#: Python of these pages is run here.
PYTHON = [block for block in BLOCKS if block.language == "python" and block.page not in ELSEWHERE]
#: Its interfaces are no whole classes.
SKETCH = "docs/design.md"
#: What a block of Python stands in: names that its page leaves to the reader.
BEFORE = {
    "docs/protocols/openai.md": "import asyncio, sys\nfrom openai import AsyncOpenAI, OpenAI\n",
}


def test_every_block_is_of_a_kind_that_is_tried() -> None:
    known = {"sh", "python", "toml", "json", "yaml"}
    strange = [str(b) for b in BLOCKS if b.language not in known and b.page not in ELSEWHERE]
    assert strange == []
    assert [place for place in ELSEWHERE.values() if not (ROOT / place).exists()] == []


def test_no_reason_is_left_over() -> None:
    used = {pattern for _, line in COMMANDS for pattern in NOT_HERE if re.match(pattern, line)}
    assert set(NOT_HERE) - used == set()
    named = [word for why in NOT_HERE.values() for word in re.findall(r"tests/[\w/.]+\w", why)]
    assert [place for place in named if not (ROOT / place).exists()] == []


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language in ("toml", "json", "yaml")], ids=str)
def test_data_can_be_read(block: PageBlock, tmp_path: Path) -> None:
    if block.language == "json":
        json.loads(block.text)
    elif block.language == "yaml":
        assert isinstance(yaml.safe_load(block.text), dict)
    elif block.page not in ELSEWHERE:
        (tmp_path / "streamer.toml").write_text(block.text, "utf-8")
        Settings.load(tmp_path / "streamer.toml")


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "python" and b.page != SKETCH], ids=str)
def test_python_is_python(block: PageBlock) -> None:
    compile(block.text, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.long
@pytest.mark.parametrize(
    ("block", "line"), [c for c in COMMANDS if re.match(r"python -m (models|bench|export) ", c[1])], ids=str
)
def test_words_and_options_exist(block: PageBlock, line: str) -> None:
    words = shlex.split(line)[2:]
    if "NAME" in words:
        return
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    depth = 2 if words[0] == "models" else 1
    if words[:2] == ["models", "zoo"] or words[0] == "bench":
        depth = 2
    parts = words[:depth] if words[0] != "bench" else [f"bench.{words[1]}"]
    text = help_of(*words[:depth]) if words[0] != "bench" else _bench_help(words[1])
    assert unknown_options(options, text) == [], parts


def _bench_help(name: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "bench", name, "--help"], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages name: samples, a recording, a model of rows and some rows for it."""
    folder = tmp_path_factory.mktemp("pages")
    shutil.copytree(ROOT / "samples", folder / "samples")
    pcm = sf.read(ROOT / "samples" / "digits.flac", dtype="int16")[0][: 3 * 16000]
    for name in ("talk.wav", "talk.flac"):
        sf.write(folder / name, pcm, 16000)
    sf.write(folder / "talk.mp3", pcm, 16000, format="MP3")
    row_model(folder)
    np.savetxt(folder / "rows.csv", np.random.default_rng(1).normal(size=(9, 3)), delimiter=",")
    tools = folder / "bin"
    tools.mkdir()
    for name, module in (("streamer", "streamer"),):
        (tools / name).write_text(f'#!/bin/bash\nexec {sys.executable} -W error -m {module} "$@"\n')
        (tools / name).chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Running]:
    """As ``streamer serve`` of the pages, with fewer models. ``english`` is called for: the digits' stands for it."""
    shutil.copy(resolve("digits"), folder / "english.onnx")
    models = [resolve("digits"), resolve("forecast-online"), folder / "plant.onnx"]
    with daemon(folder / "daemon", *models, openai_aliases="english,whisper-1") as running:
        yield running


def shell(folder: Path, command: str) -> subprocess.CompletedProcess[bytes]:
    variables = environment({"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"})
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=folder,
        env=variables,
        timeout=200,
    )


def here(text: str, running: Running) -> str:
    """The daemon's address as it is in this test."""
    return text.replace("127.0.0.1:8765", f"127.0.0.1:{running.port}")


RUN = [block for block in BLOCKS if block.language == "sh" and any(reason(line) is None for line in lines(block))]


@pytest.mark.long
@pytest.mark.parametrize("block", RUN, ids=str)
def test_the_commands_run(block: PageBlock, folder: Path, request: pytest.FixtureRequest) -> None:
    """One after the other: a later one may need what an earlier one wrote."""
    for line in lines(block):
        if reason(line) is None:
            if "127.0.0.1:8765" in line:
                line = here(line, request.getfixturevalue("served"))
            _runs(line, folder)


def _runs(line: str, folder: Path) -> None:
    if " check plant.onnx" in line:  # it keeps its laws, as a model from the page's own block does
        shutil.copy(resolve("vad"), folder / "checked.onnx")
        line = line.replace("plant.onnx", "checked.onnx")
    done = shell(folder, line.replace("curl ", "curl -sS --fail-with-body "))
    assert done.returncode == 0, (done.stderr or done.stdout).decode()
    assert b"Traceback" not in done.stderr
    written = re.findall(r"(?:-o|>) (\S+)", line)
    assert [name for name in written if not (folder / name).exists()] == []


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_the_python_runs(block: PageBlock, folder: Path, served: Running, tmp_path: Path) -> None:
    code = BEFORE.get(block.page, "") + here(block.text, served)
    if "async with AsyncOpenAI" in code:
        code = code.replace("base_url=...", f'base_url="http://127.0.0.1:{served.port}/v1"')
        head, body = code.split("async with", 1)
        inside = "".join(f"    {line}\n" for line in ("async with" + body).splitlines())
        code = f"{head}\nasync def main():\n{inside}\n        print(await connection.recv())\n\nasyncio.run(main())\n"
    if block.page == "docs/start.md":
        pytest.importorskip("torch")
    (tmp_path / "block.py").write_text(code, "utf-8")
    for name in ("samples", "talk.mp3"):
        (tmp_path / name).symlink_to(folder / name)
    command = [sys.executable, tmp_path / "block.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment(), timeout=400)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    if block.page == "docs/start.md":  # the commands behind it
        for line in (line for b, line in COMMANDS if b.page == block.page and "plant.onnx" in line):
            (tmp_path / "bin").mkdir(exist_ok=True)
            shutil.copy(folder / "bin" / "streamer", tmp_path / "bin")
            ran = shell(tmp_path, line)
            assert ran.returncode == 0, ran.stderr.decode()
