"""``streamer generate``, end to end: text as it comes, notes, sound, one event a line, Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import wave
from pathlib import Path
from typing import Any

import pytest
import torch

from export.build import build
from models.zoo.generate import music
from models.zoo.generate.teaching import info
from models.zoo.generate.token_rnn import TokenRNN, TokenRNNConfig
from models.zoo.generate.wavenet_generator import WaveNetConfig, WaveNetGenerator
from tests.cli.command import STREAMER, environment, one_line, streamer

pytestmark = pytest.mark.long

LETTERS = ["<start>", *"abcdefgh "]
NOTES = ["<start>", "on:60", "off:60", "on:64", "off:64", "wait:1", "wait:2"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("generators")
    torch.manual_seed(5)
    texts = {"licence": "none", "data": "none"}
    small = WaveNetConfig(width=2, labels=2, channels=4, dilations=(1, 2), skip=4, hidden=6, embedding=3)
    models: dict[str, tuple[Any, dict[str, Any]]] = {
        "text": (TokenRNN(TokenRNNConfig(len(LETTERS), 8)), {"tokens": LETTERS}),
        "notes": (TokenRNN(TokenRNNConfig(len(NOTES), 8)), {"tokens": NOTES, "ticks_per_second": 4.0}),
        "audio": (WaveNetGenerator(small), {"sample_rate": 8000, "conditions": {"digit": ["silence", "one"]}}),
    }
    for kind, (model, options) in models.items():
        if kind != "audio":
            model.head.bias.data[0] = -30.0  # as if trained: nothing is ever the start again
        said = options | {"kind": kind, "vocabulary": model.config.vocabulary}
        found = info(kind, model.columns.limits(), 2, said) | texts
        build(model.eval(), found, folder / f"{kind}.onnx", max_batch=2, long_chunks=60)
    return {kind: folder / f"{kind}.onnx" for kind in models}


def test_text_begins_with_the_prompt_and_has_the_length(files: dict[str, Path]) -> None:
    arguments = ("generate", "--model", files["text"], "--prompt", "bad ", "--length", "30", "--temperature", "1")
    done = streamer(*arguments)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().startswith("bad ")
    assert len(done.stdout) == 31
    assert streamer(*arguments).stdout == done.stdout
    assert streamer(*arguments, "--seed", "2").stdout != done.stdout
    lines = [json.loads(line) for line in streamer(*arguments, "--json").stdout.splitlines()]
    assert [line["type"] for line in lines] == ["text"] * 15 + ["end"]
    assert list(lines[0]) == ["type", "position", "text", "log_prob"]
    assert "".join(line.get("text", "") for line in lines) + "\n" == done.stdout.decode()
    assert lines[-1] == {"type": "end", "position": 30}


def test_text_goes_on_until_ctrl_c(files: dict[str, Path]) -> None:
    command = [*STREAMER, "generate", "--model", str(files["text"])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert len(process.stdout.read(200)) == 200
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.stderr.read() == b""
    assert rest.endswith(b"\n")
    assert process.returncode == 130


def test_notes_become_a_midi_file_sound_or_lines(files: dict[str, Path], tmp_path: Path) -> None:
    arguments = ("generate", "--model", files["notes"], "--temperature", "1", "--seconds", "10")
    lines = streamer(*arguments).stdout.decode().splitlines()
    assert lines
    assert {line.split()[2] for line in lines} <= {"C4", "E4"}
    assert streamer(*arguments, "-o", tmp_path / "a.mid").returncode == 0
    data = (tmp_path / "a.mid").read_bytes()
    assert data[:4] == b"MThd"
    assert sum(data.count(bytes((0x90, pitch, 80))) for pitch in (60, 64)) == len(lines)
    assert streamer(*arguments, "-o", tmp_path / "a.wav").returncode == 0
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert file.getnframes() > 9 * file.getframerate()


def test_sound_goes_into_a_wav_file(files: dict[str, Path], tmp_path: Path) -> None:
    arguments = ("generate", "--model", files["audio"], "--set", "digit=one", "--seconds", "0.05")
    done = streamer(*arguments, "-o", tmp_path / "one.wav")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    with wave.open(str(tmp_path / "one.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (8000, 1, 400)


@pytest.mark.parametrize(
    ("kind", "arguments", "why"),
    [
        ("text", ["--prompt", "xyz"], "does not know 'x' 'y' 'z'"),
        ("text", ["--seconds", "3"], "text has no seconds"),
        ("text", ["--play"], "can't be played"),
        ("text", ["-o", "a.wav"], "makes text: name a file that ends in .txt"),
        ("audio", [], "give a file"),
        ("audio", ["--set", "digit"], "no NAME=VALUE"),
        ("audio", ["--set", "digit=nine", "-o", "a.wav"], "one of silence, one"),
        ("audio", ["--top-k", "3", "-o", "a.wav"], "leave out top_k"),
        ("audio", ["--json", "-o", "a.wav"], "--output, --play and --json exclude each other"),
        ("notes", ["-o", "a.txt"], "name a file that ends in .mid or .midi or .wav"),
    ],
)
def test_what_can_not_be_done_is_one_line(
    files: dict[str, Path], tmp_path: Path, kind: str, arguments: list[str], why: str
) -> None:
    done = streamer("generate", "--model", files[kind], *arguments, cwd=tmp_path)
    assert why in one_line(done.stderr)
    assert (done.stdout, done.returncode) == (b"", 2)
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_another_task_generates_nothing(toy: Path) -> None:
    done = streamer("generate", "--model", toy)
    assert "is for the task transcribe" in one_line(done.stderr)
    assert done.returncode == 2


def test_the_vocabulary_of_the_music_recipe_is_one_that_can_be_played() -> None:
    from streamer.tasks.generate import NOTE

    assert all(NOTE.fullmatch(token) for token in music.TOKENS[1:])
