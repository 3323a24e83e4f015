"""docs/own-model.md is true: each of its blocks runs as it stands, and its file gives what PyTorch gives."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from streamer.contract.judge import CHUNK_TOLERANCE
from streamer.contract.probe import deviation, run
from streamer.engine.model import Model
from tests.cli.command import streamer

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "own-model.md").read_text("utf-8")
IMPORTS, *BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
MODULES = [block for block in BLOCKS if "export(" in block]
(MAKE_MODEL,) = [block for block in BLOCKS if "export(" not in block]

Whole = Callable[[Any, Tensor], Tensor]


def step_by_step(model: Any, x: Tensor, *states: Any) -> Tensor:
    """[1, n, ...] row by row, each [1, 1, ...]."""
    rows = []
    (state,) = states
    for row in x.split(1, dim=1):
        y, state = model(row, state)
        rows.append(y)
    return torch.cat(rows, dim=1)


def policy(model: Any, x: Tensor) -> Tensor:
    hidden, actions = torch.zeros(1, 64), []
    for row in x[0].split(1):
        action, hidden = model(row, hidden)
        actions.append(action)
    return torch.stack(actions, dim=1)


def gait(model: Any, x: Tensor) -> Tensor:
    """The answer after each ten rows, of all rows up to there in one call."""
    start = (torch.zeros(1, 1, 32), torch.zeros(1, 1, 32))
    return torch.stack([model(x[:, :end], start)[0].softmax(1) for end in range(10, x.shape[1] + 1, 10)], dim=1)


def ahead(model: Any, x: Tensor) -> Tensor:
    start = (torch.zeros(1, 1, 32), torch.zeros(1, 1, 32))
    return torch.stack([model(x[:, :end], start)[0] for end in range(1, x.shape[1] + 1)], dim=1)


def tcn(model: Any, x: Tensor) -> Tensor:
    return model(x.transpose(1, 2), [torch.zeros(1, 16, 2 * d) for d in (1, 2, 4)])[0].transpose(1, 2)


def attending(model: Any, x: Tensor) -> Tensor:
    heads = torch.zeros(1, 4, 16, 8)
    return step_by_step(model, x, {"k": heads, "v": heads, "seen": torch.zeros(1, 16)})


#: What PyTorch makes of a whole sequence [1, n, ...], written apart from the exporter: class -> [1, steps, ...].
WHOLE: dict[str, Whole] = {
    "Plant": lambda model, x: model(x, torch.zeros(2, 1, 64), torch.zeros(2, 1, 64))[0],
    "Gait": gait,
    "TCN": tcn,
    "Attending": attending,
    "Ahead": ahead,
    "Policy": policy,
    "Characters": lambda model, x: model(x)[0],
    "Tutorial": lambda model, x: model(x),
}


def name_of(block: str) -> str:
    found = re.search(r"class (\w+)", block)
    assert found
    return found[1]


def test_every_module_is_compared() -> None:
    assert [name_of(block) for block in MODULES] == list(WHOLE)


@pytest.mark.parametrize("block", MODULES, ids=name_of)
def test_the_block_writes_a_file_that_is_its_module(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    monkeypatch.chdir(tmp_path)
    Path("block.py").write_text(IMPORTS + block, "utf-8")
    module = runpy.run_path("block.py")["model"]
    said = capsys.readouterr().out
    (path,) = tmp_path.glob("*.onnx")
    model = Model.load(path)
    assert path.stem == model.manifest.name
    # what the page shows of the export is what it said
    for shown in re.findall(r"```\n(found.*?)```", TEXT.partition(block)[2].partition("\n## ")[0], re.DOTALL):
        assert [line for line in shown.splitlines() if line not in said.splitlines()] == []
    spec = model.manifest.input
    rng = np.random.default_rng(3)
    shape = (40, 1, *spec.chunk_shape)
    chunks = rng.integers(0, 96, shape) if spec.dtype == "int64" else rng.standard_normal(shape)
    chunks = chunks.astype(spec.dtype)
    outputs, _ = run(model, chunks)
    first = model.manifest.outputs[0].name
    got = np.concatenate(list(outputs[first]), axis=1)  # [1, steps, ...]
    with torch.no_grad():
        want = WHOLE[name_of(block)](module.eval(), torch.from_numpy(np.concatenate(list(chunks), axis=1)))
    assert deviation(got, want.numpy()) < CHUNK_TOLERANCE


def test_the_commands_of_the_page_run(tmp_path: Path) -> None:
    (shell,) = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    export, check, serve = (shlex.split(line)[1:] for line in shell.splitlines())
    plant = MODULES[0].partition("\nmodel = ")[0]
    (tmp_path / "my_module.py").write_text(IMPORTS + plant + MAKE_MODEL, "utf-8")
    made = runpy.run_path(str(tmp_path / "my_module.py"))["make_model"]()[0]
    torch.save(made.state_dict(), tmp_path / "net.pt")
    done = streamer(*export, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    assert "serve it: streamer serve --model plant.onnx" in done.stdout.decode()
    assert streamer(*check, cwd=tmp_path).returncode == 0
    assert serve[0] == "serve"
    model = Model.load(tmp_path / "plant.onnx")
    x = np.random.default_rng(0).standard_normal((30, 1, 1, 8)).astype(np.float32)
    got, _ = run(model, x)
    with torch.no_grad():
        want = WHOLE["Plant"](made.eval(), torch.from_numpy(x[:, :, 0].swapaxes(0, 1)))
    assert deviation(got["output"][:, 0, 0], want[0].numpy()) < CHUNK_TOLERANCE  # the weights are those of net.pt
