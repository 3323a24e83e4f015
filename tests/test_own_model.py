"""docs/own-model.md is true: each of its blocks runs as it stands, and its file gives what PyTorch gives."""

from __future__ import annotations

import asyncio
import io
import json
import re
import runpy
import shlex
from collections.abc import Callable
from contextlib import chdir, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamer.contract.judge import CHUNK_TOLERANCE
from streamer.contract.probe import deviation
from streamer.engine.model import Model
from streamer.engine.stepper import Stepper
from tests.cli.command import streamer
from tests.daemon.running import daemon
from tests.daemon.talk import dial, until_closed

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "own-model.md").read_text("utf-8")
IMPORTS, *BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
MODULES = [block for block in BLOCKS if "export(" in block]
(MAKE_MODEL,) = [block for block in BLOCKS if "export(" not in block]

Whole = Callable[[Any, Tensor], Tensor]


def step_by_step(model: Any, x: Tensor, state: Any) -> Tensor:
    """[1, n, ...] row by row, each [1, 1, ...]."""
    rows = []
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


@dataclass
class Exported:
    module: Any
    path: Path
    said: list[str]

    def compared(self, steps: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Rows [n, ...] of some chunks, and what PyTorch makes of all of them at once, [steps, ...]."""
        spec = Model.load(self.path).manifest.input
        rng = np.random.default_rng(3)
        shape = (steps * spec.chunk_shape[0], *spec.chunk_shape[1:])
        values = rng.integers(0, 96, shape) if spec.dtype == "int64" else rng.standard_normal(shape)
        rows = values.astype(spec.dtype)
        with torch.no_grad():
            want = WHOLE[type(self.module).__name__](self.module.eval(), torch.from_numpy(rows[None]))
        return rows, want[0].numpy()


class Page:
    """Runs each block once, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done: dict[str, Exported] = {}

    def __call__(self, block: str) -> Exported:
        name = name_of(block)
        if name not in self.done:
            where, said = self.folder / name, io.StringIO()
            where.mkdir()
            (where / "block.py").write_text(IMPORTS + block, "utf-8")
            torch.manual_seed(0)
            with chdir(where), redirect_stdout(said):
                module = runpy.run_path("block.py")["model"]
            (path,) = where.glob("*.onnx")
            self.done[name] = Exported(module, path, said.getvalue().splitlines())
        return self.done[name]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(tmp_path_factory.mktemp("page"))


@pytest.mark.parametrize("block", MODULES, ids=name_of)
def test_the_block_writes_a_file_that_is_its_module(block: str, page: Page) -> None:
    exported = page(block)
    stepper = Stepper(Model.load(exported.path))
    manifest = stepper.manifest
    assert exported.path.stem == manifest.name
    # what the page shows of the export is what it said
    for shown in re.findall(r"```\n(found.*?)```", TEXT.partition(block)[2].partition("\n## ")[0], re.DOTALL):
        assert [line for line in shown.splitlines() if line not in exported.said] == []
    rows, want = exported.compared(40)
    name = manifest.outputs[0].name
    got = [stepper.step(chunk[None])[name][0] for chunk in np.split(rows, 40)]
    assert deviation(np.concatenate(got), want) < CHUNK_TOLERANCE


def test_the_files_are_served(page: Page, tmp_path: Path) -> None:
    """Rows over the WebSocket, all models in one daemon."""
    files = {name_of(block): page(block) for block in MODULES}

    async def stream(url: str, exported: Exported, rows: NDArray[Any]) -> list[dict[str, Any]]:
        async with dial(url) as socket:
            await socket.send(json.dumps({"type": "start", "model": exported.path.stem}))
            for part in np.array_split(rows, 5):
                await socket.send(part.tobytes())
            await socket.send('{"type":"end"}')
            return (await until_closed(socket))[0]

    with daemon(tmp_path, *(exported.path for exported in files.values()), max_batch=4) as running:
        for name, exported in files.items():
            rows, want = exported.compared(12)
            events = asyncio.run(stream(running.url, exported, rows))
            if name == "Gait":  # the answer for the stream is the last chunk's
                (final,) = [event for event in events if event["type"] == "final"]
                assert final["label"] == ["walk", "run", "sit", "fall"][int(want[-1].argmax())]
                continue
            parts = [next(iter(event["outputs"].values())) for event in events if event["type"] == "outputs"]
            got = np.concatenate([np.array(part) for part in parts])
            assert deviation(got, want) < CHUNK_TOLERANCE, name


@pytest.mark.timeout(900)
def test_the_commands_of_the_page_run(tmp_path: Path) -> None:
    (shell,) = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    export, check, run, serve = (shlex.split(line)[1:] for line in shell.splitlines())
    plant = MODULES[0].partition("\nmodel = ")[0]
    (tmp_path / "my_module.py").write_text(IMPORTS + plant + MAKE_MODEL, "utf-8")
    made = runpy.run_path(str(tmp_path / "my_module.py"))["make_model"]()[0]
    torch.save(made.state_dict(), tmp_path / "net.pt")
    done = streamer(*export, cwd=tmp_path, seconds=600)  # PyTorch and its exporter are imported anew
    assert done.returncode == 0, done.stderr.decode()
    assert "serve it: streamer serve --model plant.onnx" in done.stdout.decode()
    assert streamer(*check, cwd=tmp_path).returncode == 0
    np.savetxt(tmp_path / "rows.csv", np.zeros((5, 8)), delimiter=",")
    done = streamer(*run, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    assert len(done.stdout.splitlines()) >= 5
    assert serve == ["serve", "--model", "plant.onnx"]
    rows, want = Exported(made, tmp_path / "plant.onnx", []).compared(30)
    stepper = Stepper(Model.load(tmp_path / "plant.onnx"))
    got = [stepper.step(row[None])["output"][0] for row in np.split(rows, 30)]
    assert deviation(np.concatenate(got), want) < CHUNK_TOLERANCE  # the weights are those of net.pt
