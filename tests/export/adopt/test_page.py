"""docs/adopt.md is true: what it shows of the tool is what the tool says, and every key that it lists can be set."""

from __future__ import annotations

import re
import shlex
import warnings
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from export.adopt.settings import AdoptSettings, read_settings
from streamer.engine.model import Model
from tests.cli.command import ROOT, streamer

pytestmark = pytest.mark.long

TEXT = (ROOT / "docs" / "adopt.md").read_text("utf-8")
EXPORT, SAVE = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
BLOCKS = re.findall(r"```\n\$ (streamer adopt [^\n]*)\n(.*?)```", TEXT, re.DOTALL)
SHOWN = {shlex.split(command)[2]: (shlex.split(command)[1:], shown.splitlines()) for command, shown in BLOCKS[:2]}
((COMPARE, COMPARED),) = [block for block in BLOCKS if "--compare" in block[0]]


class Plant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 32, num_layers=2, batch_first=True), nn.Linear(32, 3)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        y, (h, c) = self.lstm(x, state)
        return self.head(y[:, -1]), h, c


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's own export, two files of calls as its own code saves them, and a graph that leaves much open."""
    folder = tmp_path_factory.mktemp("page")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, x, h0, c0 = Plant(), torch.randn(1, 200, 8), torch.zeros(2, 1, 32), torch.zeros(2, 1, 32)
    given: dict[str, Any] = {"torch": torch, "numpy": np, "model": model, "x": x, "h0": h0, "c0": c0}
    with chdir(folder), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        exec(EXPORT, given)
        h, c, calls, results = h0, c0, [], []
        for row in x.split(1, dim=1):
            y, h, c = model(row, (h, c))
            calls.append(row.numpy())
            results.append(y.numpy())
        exec(SAVE, given | {"calls": calls, "results": results})
    graph = """(float[1,6,4] x, float[1,8] alpha, float[1,8] beta)
        => (float[1,3] y, float[1,8] left, float[1,8] right) {
            flat = Flatten(x)  in = MatMul(flat, w)  both = Add(alpha, beta)
            more = Add(both, in)  less = Sub(both, in)  left = Tanh(more)  right = Tanh(less)
            gate = Mul(left, right)  y = MatMul(gate, v) }"""
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {graph}')
    rng = np.random.default_rng(0)
    for name, shape in (("w", (24, 8)), ("v", (8, 3))):
        weights = rng.normal(0, 0.2, shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weights, name))
    onnx.save(proto, folder / "other.onnx")
    return folder


def plain(line: str) -> str:
    """What was measured differs from machine to machine."""
    return re.sub(r"\b\d\.\de[-+]\d\d\b", "#", line)


def said(folder: Path, command: list[str]) -> tuple[list[str], int]:
    done = streamer(*command, cwd=folder)
    return [plain(line) for line in (done.stdout + done.stderr).decode().splitlines()], done.returncode


@pytest.mark.parametrize("file", ["plant.onnx", "other.onnx"])
def test_the_tool_says_what_the_page_shows(folder: Path, file: str) -> None:
    command, shown = SHOWN[file]
    lines, code = said(folder, command)
    assert [line for line in shown if line != "..." and plain(line) not in lines] == []
    if "..." not in shown:
        assert lines == [plain(line) for line in shown]
    assert code == (0 if file == "plant.onnx" else 1)
    assert (folder / file.replace(".onnx", ".streamer.onnx")).exists() == (file == "plant.onnx")


def test_what_is_asked_can_be_pasted(folder: Path) -> None:
    """And answered: then the file is adopted."""
    lines, _ = said(folder, SHOWN["other.onnx"][0])
    answers = "\n".join(lines[lines.index("[input]") :]).replace('beta = "left"', 'beta = "right"')
    (folder / "other.toml").write_text(answers, "utf-8")
    lines, code = said(folder, ["adopt", "other.onnx", "-c", "other.toml"])
    assert code == 0, lines
    pairs = {state.in_: state.out for state in Model.load(folder / "other.streamer.onnx").manifest.states}
    assert pairs == {"alpha": "left", "beta": "right"}


def test_a_golden_check_by_the_page(folder: Path) -> None:
    lines, code = said(folder, shlex.split(COMPARE)[1:])
    assert code == 0
    wanted = [line for line in COMPARED.splitlines() if line != "..."]
    assert [line for line in wanted if plain(line) not in lines] == []


def test_every_key_can_be_set(tmp_path: Path) -> None:
    table = TEXT.partition("## What the TOML can say")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `\[(\w+)\]([^`]*)`", table, re.M)
    assert {name for name, _ in listed} | {"recogniser"} == set(AdoptSettings.model_fields)
    for name, keys in listed:
        default = AdoptSettings.model_fields[name].annotation
        fields: set[str] = set(getattr(default, "model_fields", ()))
        if name == "host":
            fields = {"fft", "hop", "window", "feature", "result", "chain"}
        named = {key.strip() for key in keys.split(",") if key.strip(" …")} - {"…"}
        assert name == "task" or not fields or named <= fields, (name, named - fields)


def test_its_settings_are_read(tmp_path: Path) -> None:
    for number, toml in enumerate(re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)):
        path = tmp_path / f"{number}.toml"
        path.write_text(toml, "utf-8")
        assert read_settings(path).input.sample_rate == 16000
