"""What the user's own host gave and got: the check that sees what no law can, swapped states and wrong axes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export.adopt.build import adopt
from export.adopt.report import AdoptionError, Report
from tests.export.adopt.support import Array, Original, exported, settings, sound


class Twin(nn.Module):
    """Two states of one shape that do different things with it, and as many channels as rows."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.Linear(16, 8), nn.Linear(16, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = x.mean(1)
        a, b = torch.tanh(self.one(torch.cat([mean, a], 1))), torch.sigmoid(self.two(torch.cat([mean, b], 1)))
        return self.out(x) + a[:, None] - b[:, None], a, b


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(2)
    given = {"x": torch.randn(1, 8, 8), "a": torch.zeros(1, 8), "b": torch.zeros(1, 8)}
    return exported(Twin(), tmp_path_factory.mktemp("twin") / "m.onnx", given, ["y", "an", "bn"])


@pytest.fixture(scope="module")
def rows() -> Array:
    return np.random.default_rng(0).standard_normal((20, 1, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def gave(source: Path, rows: Array) -> Array:
    original, a, b, out = Original(source), np.zeros((1, 8), np.float32), np.zeros((1, 8), np.float32), []
    for call in rows:
        got = original(x=call, a=a, b=b)
        a, b = got["an"], got["bn"]
        out.append(got["y"])
    return np.stack(out)


def compared(tmp_path: Path, source: Path, inputs: dict[str, Array], outputs: dict[str, Array], toml: str = "") -> str:
    given, wanted, report = tmp_path / "in.npz", tmp_path / "out.npz", Report()
    np.savez(given, **inputs)
    np.savez(wanted, **outputs)
    said = settings(tmp_path, toml or "[input]\ntime = 1\n")
    target = tmp_path / "adopted.onnx"
    adopt(source, target, said, report=report, max_batch=2, long_chunks=20, compare=(given, wanted))
    assert target.is_file()
    return report.lines[-1]


def test_calls_as_the_host_made_them(tmp_path: Path, source: Path, rows: Array, gave: Array) -> None:
    assert "20 calls of your own host: y within" in compared(tmp_path, source, {"x": rows}, {"y": gave})


def test_one_long_run(tmp_path: Path, source: Path, rows: Array, gave: Array) -> None:
    whole = {"x": rows.reshape(1, 160, 8)}, {"y": gave.reshape(1, 160, 8)}
    assert "20 calls of your own host" in compared(tmp_path, source, *whole)
    assert "20 calls of your own host" in compared(
        tmp_path, source, {"x": rows.reshape(160, 8)}, {"y": gave.reshape(160, 8)}
    )


def test_swapped_states(tmp_path: Path, source: Path, rows: Array, gave: Array) -> None:
    """The file is adopted without this check: it keeps all laws."""
    toml = '[input]\ntime = 1\n[state]\na = "bn"\nb = "an"\n'
    adopt(source, tmp_path / "swapped.onnx", settings(tmp_path, toml), max_batch=2, long_chunks=20)
    with pytest.raises(AdoptionError, match=r"from call 2 on: the first call is right, so a state is wrong"):
        compared(tmp_path, source, {"x": rows}, {"y": gave}, toml)
    assert not (tmp_path / "adopted.onnx").exists()


def test_a_wrong_axis(tmp_path: Path, source: Path, rows: Array, gave: Array) -> None:
    whole = {"x": rows.reshape(160, 8)}, {"y": gave.reshape(160, 8)}
    with pytest.raises(AdoptionError, match=r"from call 1 on: the first call is wrong, so look at the axes"):
        compared(tmp_path, source, *whole, "[input]\ntime = 2\n")


@pytest.mark.parametrize(
    ("inputs", "outputs", "reason"),
    [
        ({"z": (20, 1, 8, 8)}, {"y": (20, 1, 8, 8)}, "in.npz has z, which the model does not take"),
        ({}, {"y": (20, 1, 8, 8)}, "in.npz has no x"),
        ({"x": (20, 1, 8, 8)}, {"z": (20, 1, 8, 8)}, "out.npz has z; the results are y"),
        ({"x": (20, 1, 8, 8)}, {}, "out.npz is empty"),
        ({"x": (20, 1, 7, 8)}, {"y": (20, 1, 8, 8)}, r"x is \[20, 1, 7, 8\]: either calls"),
        ({"x": (20, 1, 8, 8)}, {"y": (20, 1, 8, 7)}, r"y is \[20, 1, 8, 7\], the adopted file gives"),
    ],
)
def test_files_that_do_not_fit(
    tmp_path: Path,
    source: Path,
    inputs: dict[str, tuple[int, ...]],
    outputs: dict[str, tuple[int, ...]],
    reason: str,
) -> None:
    shapes = [{name: np.zeros(shape, np.float32) for name, shape in one.items()} for one in (inputs, outputs)]
    with pytest.raises(AdoptionError, match=reason):
        compared(tmp_path, source, *shapes)


class Level(nn.Module):
    def forward(self, wav: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        level = 0.9 * level + 0.1 * wav.abs().mean(1, keepdim=True)
        return wav / (level + 0.1), level


@pytest.mark.parametrize("scale", [1 / 32768, 1 / 32767])
def test_sound_as_the_host_had_it(tmp_path: Path, scale: float) -> None:
    given = {"wav": torch.randn(1, 64), "level": torch.zeros(1, 1)}
    source = exported(Level(), tmp_path / "m.onnx", given, ["out", "level_out"])
    pcm, level, gave = sound(20 * 64, 1), np.zeros((1, 1), np.float32), []
    original = Original(source)
    for chunk in pcm.reshape(-1, 64):
        got = original(wav=(chunk / 32768).astype(np.float32)[None], level=level)
        level = got["level_out"]
        gave.append(got["out"][0])
    toml = "[input]\nsample_rate = 8000\n"
    floats = (pcm * scale).astype(np.float32)
    if scale == 1 / 32768:
        assert "20 calls" in compared(tmp_path, source, {"wav": floats}, {"out": np.concatenate(gave)}, toml)
        assert "20 calls" in compared(tmp_path, source, {"wav": pcm}, {"out": np.stack(gave)[:, None]}, toml)
    else:
        with pytest.raises(AdoptionError, match="not 16-bit sound times"):
            compared(tmp_path, source, {"wav": floats}, {"out": np.concatenate(gave)}, toml)
