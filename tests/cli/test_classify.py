"""`streamer classify`: segments of recordings, answers for texts, and what is told of models for something else."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile as sf
from onnx import TensorProto, helper, numpy_helper

from streamer.contract.manifest import KEY, Golden, Input, Manifest, Output, Provenance, State, Tensor
from tests.cli.command import STREAMER, environment, one_line, streamer
from tests.cli.conftest import RATE
from tests.toys import level, toy_model

PRAISE, BLAME = ord("+"), ord("-")


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Loud positive levels are A, loud negative ones B."""
    return toy_model(tmp_path_factory.mktemp("models"), name="listener", classify=True, flush=0)


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a text: are there more plus signs than minus signs?"""
    return text_model(tmp_path_factory.mktemp("models") / "counter.onnx")


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of nothing, of A, of nothing, of B, of nothing."""
    path = tmp_path_factory.mktemp("audio") / "talk.wav"
    sf.write(path, np.concatenate([level(v, 1.0, RATE) for v in (0.0, 1.0, 0.0, -1.0, 0.0)]), RATE)
    return path


def text_model(path: Path) -> Path:
    """8 bytes a chunk; the state is the difference so far, the score its logistic function."""
    chunk = 8
    constants = {
        "plus": np.array(PRAISE, np.int32),
        "minus": np.array(BLAME, np.int32),
        "axis": np.array(1),
        "signs": np.array([-1.0, 1.0], np.float32),
        "last": np.array([chunk - 1]),
        "two": np.array([2]),
    }
    nodes = [
        helper.make_node("Cast", ["text"], ["text32"], to=TensorProto.INT32),
        helper.make_node("Equal", ["text32", "plus"], ["is_plus"]),
        helper.make_node("Equal", ["text32", "minus"], ["is_minus"]),
        helper.make_node("Cast", ["is_plus"], ["up"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["is_minus"], ["down"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["up", "down"], ["change"]),
        helper.make_node("CumSum", ["change", "axis"], ["since"]),
        helper.make_node("Add", ["since", "so_far"], ["total"]),
        helper.make_node("Gather", ["total", "last"], ["so_far.next"], axis=1),
        helper.make_node("Unsqueeze", ["total", "two"], ["column"]),
        helper.make_node("Mul", ["column", "signs"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=-1),
    ]

    def value(name: str, kind: int, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, ["batch", *shape])

    graph = helper.make_graph(
        nodes,
        "counter",
        [value("text", TensorProto.UINT8, chunk), value("so_far", TensorProto.FLOAT, 1)],
        [value("scores", TensorProto.FLOAT, chunk, 2), value("so_far.next", TensorProto.FLOAT, 1)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    chunks = (np.full((1, chunk), PRAISE, np.uint8), np.full((1, chunk), BLAME, np.uint8))
    document = Manifest(
        schema=1, name="counter", version="1", task="classify", licence="Apache-2.0",
        input=Input(name="text", dtype="uint8", chunk_shape=(chunk,), step_seconds=0.0),
        states=(State.model_validate({"in": "so_far", "out": "so_far.next", "dtype": "float32", "shape": (1,)}),),
        outputs=(Output(name="scores", dtype="float32", shape=(chunk, 2)),), latency=0, flush=0, max_batch=8,
        options={"mode": "final", "labels": ["blame", "praise"], "text": True},
        provenance=Provenance(data="none", revision="none", tolerance=0.0),
        golden=Golden(
            chunks=tuple(Tensor.of(c) for c in chunks),
            outputs={"scores": tuple(Tensor.of(np.zeros((1, chunk, 2), np.float32)) for _ in chunks)},
        ),
    )  # fmt: skip
    helper.set_model_props(model, {KEY: document.to_json()})
    onnx.save(model, str(path))
    return path


def events(stdout: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stdout.decode().splitlines()]


def test_segments_are_lines(listener: Path, talk: Path) -> None:
    done = streamer("classify", "--model", listener, talk)
    assert (done.stderr, done.returncode) == (b"", 0)
    rows = [line.split() for line in done.stdout.decode().splitlines()]
    assert [(label, round(float(start)), round(float(end))) for start, end, label, _ in rows] == [
        ("A", 1, 2),
        ("B", 3, 4),
    ]
    assert all(0.5 < float(row[3]) <= 1 for row in rows)


def test_json_has_every_event(listener: Path, talk: Path) -> None:
    found = events(streamer("classify", "--json", "--model", listener, talk).stdout)
    segments = [(e["phase"], e["label"]) for e in found if e["type"] == "segment"]
    assert segments == [("begin", "A"), ("end", "A"), ("begin", "B"), ("end", "B")]
    assert {e["file"] for e in found} == {str(talk)}
    assert {e["label"] for e in found if e["type"] == "partial"} == {None, "A", "B"}
    final = found[-1]
    assert list(final) == ["type", "file", "label", "start", "end", "scores"]
    assert (final["type"], final["end"]) == ("final", 5.0)


@pytest.mark.long
def test_thresholds(listener: Path, talk: Path) -> None:
    done = streamer("classify", "--model", listener, "--on", "1", "--off", "1", talk)
    assert len(done.stdout.splitlines()) <= 2
    done = streamer("classify", "--model", listener, "--on", "0.2", "--off", "0.4", talk)
    assert "off is at most on" in one_line(done.stderr)
    assert done.returncode == 2


@pytest.mark.long
def test_several_files_and_a_pipe(listener: Path, talk: Path, tmp_path: Path) -> None:
    quiet = tmp_path / "quiet.wav"
    sf.write(quiet, level(0.0, 1.0, RATE), RATE)
    done = streamer("classify", "--model", listener, quiet, talk)
    assert [line.split(": ")[0] for line in done.stdout.decode().splitlines()] == [str(talk), str(talk)]
    alone = streamer("classify", "--model", listener, talk).stdout
    pcm, _ = sf.read(talk, dtype="int16")
    piped = streamer("classify", "--model", listener, "-", "--rate", str(RATE), stdin=pcm.tobytes())
    assert (piped.stdout, piped.stderr) == (alone, b"")


def test_a_pipe_is_answered_before_it_ends(listener: Path) -> None:
    command = [*STREAMER, "classify", "-", "--rate", str(RATE), "--model", str(listener)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(np.concatenate([level(1.0, 1.0, RATE), level(0.0, 1.0, RATE)]).tobytes())
        process.stdin.flush()
        assert process.stdout.readline().split()[2] == b"A"
        process.stdin.close()
        assert process.stdout.read() == b""
    assert process.returncode == 0


def test_texts(counter: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("+ is better than + \u00e9 -")
    done = streamer("classify", "--model", counter, "a.txt", cwd=tmp_path)
    assert (done.stdout.decode(), done.stderr) == ("praise  0.88\n", b"")
    found = events(streamer("classify", "--json", "--model", counter, "a.txt", cwd=tmp_path).stdout)
    assert [(e["type"], e["label"], e["end"]) for e in found] == [
        ("partial", "praise", 8.0),
        ("partial", "praise", 16.0),
        ("partial", "praise", 23.0),
        ("final", "praise", 23.0),
    ]


def test_every_line_may_be_a_text(counter: Path) -> None:
    done = streamer("classify", "--model", counter, "--lines", "-", stdin=b"++ a\n\nb --\n-+-")
    assert re.findall(r"praise|blame", done.stdout.decode()) == ["praise", "blame", "blame"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "digits", "x.wav"], "digits is a model for another task: streamer transcribe runs it"),
        (["--model", "forecast-universal", "x.wav"], "streamer forecast runs it"),
        (["--model", "nothing", "x.wav"], "no model 'nothing'"),
        (["x.wav", "x.wav"], "x.wav is given twice"),
        (["--on", "2", "x.wav"], "--on"),
        ([], "Missing argument"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = streamer("classify", *arguments, cwd=tmp_path)
    assert message in one_line(done.stderr)
    assert (done.stdout, done.returncode) == (b"", 2)


@pytest.mark.parametrize(("name", "message"), [("missing.txt", "No such file"), ("empty.txt", "is empty")])
def test_bad_texts(counter: Path, tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty.txt").write_bytes(b"")
    done = streamer("classify", "--model", counter, name, cwd=tmp_path)
    assert message in one_line(done.stderr)
    assert done.returncode == 2


def test_a_recording_that_is_none(listener: Path, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"not audio")
    done = streamer("classify", "--model", listener, "a.wav", cwd=tmp_path)
    assert "a.wav" in one_line(done.stderr)
    assert done.returncode == 2


def test_other_commands_say_which_one_runs_it(listener: Path, talk: Path) -> None:
    done = streamer("transcribe", "--model", listener, talk)
    assert "streamer classify runs it" in one_line(done.stderr)
    assert done.returncode == 2


def test_lines_are_for_texts(listener: Path, talk: Path) -> None:
    done = streamer("classify", "--model", listener, "--lines", talk)
    assert "--lines is for models that take text" in one_line(done.stderr)
