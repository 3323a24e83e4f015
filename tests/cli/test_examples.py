"""Every example in every ``--help`` runs, as it is printed, in a folder that has the files it names.

What hardware, other programs and endless things do is done by small programs of the same name: a microphone that has a
recording to tell, a broker's client that prints numbers. What a test can't have at all is in ``ELSEWHERE``.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import soundfile as sf
import typer

from streamer.cli import EPILOG, app
from tests.cli.command import ROOT, environment
from tests.daemon.running import Running, daemon
from tests.rows import row_model

EXAMPLES = [line.removeprefix("  $ ") for text in EPILOG.values() for line in text.splitlines() if line[:4] == "  $ "]
#: Example -> where it is tried instead.
ELSEWHERE = {
    "streamer listen": "tests/cli/test_microphone.py",
    "streamer listen --list-devices": "tests/cli/test_microphone.py",
    "streamer listen --device USB --seconds 60 --json": "tests/cli/test_microphone.py",
    "streamer listen --url ws://127.0.0.1:8765 --model digits": "tests/cli/test_microphone.py",
    "streamer enhance --listen --output-device cable": "tests/cli/test_microphone.py",
    "streamer transcribe --revise base talk.wav": "tests/streams/test_whisper.py",
    "streamer token add alice": "tests/cli/test_token.py",
    "streamer token add grafana --scope read": "tests/cli/test_token.py",
    "streamer token add plant --scope write --requests-per-second 50": "tests/cli/test_token.py",
    "STREAMER_STATE_DIRECTORY=/var/lib/streamer streamer token list": "tests/cli/test_token.py",
    "streamer token remove alice": "tests/cli/test_token.py",
    "streamer drain --to http://10.0.0.2:8765": "tests/daemon/test_moving.py",
    "streamer top": "tests/cli/test_top.py",
    "streamer top --url https://10.0.0.2:8765 --every 5": "tests/cli/test_top.py",
    "streamer top --once --json | jq .models": "tests/cli/test_top.py",
    "streamer completion bash >> ~/.bashrc": "tests/cli/test_completion.py",
    "streamer completion zsh > ~/.zfunc/_streamer": "tests/cli/test_completion.py",
    "streamer completion fish > ~/.config/fish/completions/streamer.fish": "tests/cli/test_completion.py",
    "streamer reload": "tests/daemon/test_reload.py",
    "systemctl reload streamer": "tests/daemon/test_reload.py",
    "streamer sessions list": "tests/daemon/test_moving.py",
    "streamer sessions export meeting-7 -o meeting-7.stream": "tests/daemon/test_moving.py",
    "streamer sessions import meeting-7 meeting-7.stream --url http://10.0.0.2:8765": "tests/daemon/test_moving.py",
    "streamer sessions evict meeting-7": "tests/daemon/test_moving.py",
    "streamer adopt silero_vad.onnx --config silero.toml": "tests/export/adopt/test_public_signatures.py",
    "streamer adopt encoder.onnx -o encoder.streamer.onnx": "tests/export/adopt/test_plain_exports.py",
    "streamer adopt sherpa-onnx-streaming-zipformer-en-2023-06-26 -o english.onnx": "tests/export/adopt",
}
#: What the others do: they end by themselves, and say nothing.
STAND_INS = {
    "arecord": "cat talk.raw",
    "aplay": "cat > /dev/null",
    "mosquitto_sub": 'case " $* " in *" -v "*) name="pump ";; esac; for n in $(seq 40); do echo "${name}20.$n"; done',
    "ffmpeg": "cat a.wav",
    "tail": "cat rows.ndjson",
}
MODULE = """
import torch

class Plant(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(3, 3, batch_first=True)

    def forward(self, x, h, c):
        y, (h, c) = self.lstm(x, (h, c))
        return y, h, c

def make_model():
    return Plant(), torch.zeros(1, 1, 3), (torch.zeros(1, 1, 3), torch.zeros(1, 1, 3))
"""


def _fill(folder: Path) -> None:
    """All that the examples name."""
    pcm = sf.read(ROOT / "samples" / "digits.flac", dtype="int16")[0][: 3 * 16000]
    for name in ("talk.flac", "a.wav", "b.wav", "noisy.flac", "one.mp3", "two.mp3"):
        sf.write(folder / name, pcm, 16000)
    sf.write(folder / "talk.opus", pcm, 16000, format="OGG", subtype="OPUS")
    (folder / "talk.raw").write_bytes(pcm.tobytes())
    shutil.copytree(ROOT / "samples", folder / "samples")
    rows = [
        {"ts": f"2026-01-01T{h:02d}:{m:02d}:00Z", "pump": "p1", "flow": h + m / 60} for h in range(2) for m in range(60)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "readings.ndjson.gz").write_bytes(gzip.compress(lines.encode()))
    wide = "".join(f"{row['ts']},{row['flow']:.3f},{2 * row['flow']:.3f}\n" for row in rows)
    (folder / "wide.csv").write_text("time,inlet,outlet\n" + wide)
    table = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
    np.save(folder / "rows.npy", table)
    body = "".join(",".join(f"{v:.4f}" for v in row) + "\n" for row in table)
    (folder / "rows.csv").write_text("pressure,flow,level\n" + body)
    (folder / "table.csv").write_text("pressure,flow,level\n" + body)
    (folder / "rows.ndjson").write_text("".join(json.dumps([round(float(v), 4) for v in row]) + "\n" for row in table))
    (folder / "my_module.py").write_text(MODULE)
    (folder / "streamer.toml").write_text('models = ["digits"]\n')


def _tools(folder: Path) -> Path:
    tools = folder / "bin"
    tools.mkdir()
    programs = STAND_INS | {"streamer": f'exec {sys.executable} -W error -m streamer "$@"'}
    for name, text in programs.items():
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
        (tools / name).chmod(0o755)
    return tools


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    _fill(folder)
    return folder


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _tools(tmp_path_factory.mktemp("tools"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = ROOT / "models"
    models = [
        folder / "pretrained" / "digits.onnx",
        folder / "pretrained" / "denoiser.onnx",
        folder / "zoo/trained/vad.onnx",
    ]
    with daemon(tmp_path_factory.mktemp("served"), *models) as running:
        yield running


def test_the_list_of_exceptions_is_of_examples() -> None:
    assert sorted(ELSEWHERE) == sorted(set(ELSEWHERE) & set(EXAMPLES))
    assert [place for place in ELSEWHERE.values() if not (ROOT / place).exists()] == []


def _marked(line: str) -> Any:
    """Exports start PyTorch three times."""
    return pytest.param(line, marks=pytest.mark.long) if " export " in line else line


@pytest.mark.long
@pytest.mark.parametrize("line", [_marked(e) for e in EXAMPLES if e not in ELSEWHERE and "streamer serve" not in e])
def test_example(line: str, workplace: Path, tools: Path, request: pytest.FixtureRequest) -> None:
    if " export " in line and importlib.util.find_spec("torch") is None:
        pytest.skip("needs PyTorch")
    if " export " in line:
        save = "import torch, my_module; torch.save(my_module.Plant().state_dict(), 'net.pt')"
        subprocess.run([sys.executable, "-c", save], cwd=workplace, env=environment(), check=True)
    command = line
    if "plant.onnx" in line and " export " not in line:
        row_model(workplace)
    if " check " in line:
        shutil.copy(ROOT / "models" / "zoo" / "trained" / "vad.onnx", workplace / "model.onnx")
        command = command.replace("path/to/model.onnx", "model.onnx")
    if "ws://127.0.0.1:8765" in line:
        running: Running = request.getfixturevalue("served")
        model = "" if "--model" in line else " --model " + ("denoiser" if " enhance " in line else "digits")
        command = command.replace("ws://127.0.0.1:8765", f"ws://127.0.0.1:{running.port}{model}")
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=workplace,
        env=environment({"PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(workplace)}),
        timeout=200,
    )
    assert done.returncode == 0, (done.stderr or done.stdout).decode()
    assert b"Traceback" not in done.stderr
    written = re.findall(r"(?:-o|>|--plot|--output) (\S+)", line)
    assert [name for name in written if name != "/dev/null" and not (workplace / name).exists()] == []
    assert done.stdout or written or "aplay" in line


@pytest.mark.long
@pytest.mark.parametrize("line", [e for e in EXAMPLES if "streamer serve" in e])
def test_example_of_the_daemon(line: str, workplace: Path, tools: Path, tmp_path: Path) -> None:
    """It says that it is ready, and ends at SIGTERM. Where the example names no model, the digits' will do."""
    settings = {"STREAMER_STATE_DIRECTORY": str(tmp_path), "STREAMER_PORT": "0"}
    if "--model" not in line and "--config" not in line:
        settings["STREAMER_MODELS"] = "digits"
    command = re.sub(r"--port \d+", "--port 0", line) + f" --port-file {tmp_path / 'port'}"
    process = subprocess.Popen(
        [
            "bash",
            "-c",
            re.sub(r"(^|\s)streamer serve", r"\1exec streamer serve", command).replace("debug exec", "debug"),
        ],
        cwd=workplace,
        env=environment({"PATH": f"{tools}:{os.environ['PATH']}", **settings}),
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    with process:
        end = time.monotonic() + 100
        while not (tmp_path / "port").exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said.decode()


def _documented() -> list[tuple[str, str]]:
    """Commands of ``streamer`` in the documents: in blocks of code, with or without a prompt."""
    found = []
    for page in sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]):
        for line in page.read_text("utf-8").splitlines():
            words = re.match(r"(?:    |\$ |)(?:[A-Z_]+=\S+ )*(streamer [a-z]+ .*)", line)
            if words and " is " not in line:
                found.append((page.name, words[1].partition("  #")[0].partition(" | ")[0].strip()))
    return found


@pytest.mark.parametrize(("page", "line"), _documented())
def test_documented_commands_are_understood(page: str, line: str) -> None:
    """Their options and values exist; the files need not."""
    group = typer.main.get_command(app)
    name, *arguments = shlex.split(line, comments=True)[1:]
    arguments = arguments[: next((n for n, a in enumerate(arguments) if a in (">", "2>", "<", "&&", "&")), None)]
    command = group.get_command(click.Context(group), name)  # type: ignore[attr-defined]
    assert command is not None
    with command.make_context(name, arguments):
        pass
