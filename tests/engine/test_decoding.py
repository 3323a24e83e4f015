"""A batch is decoded at once. Where a task's step raises, only the stream that it raises for fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.engine.catalogue import resolve
from streamer.engine.decoding import decode
from streamer.engine.model import Model
from streamer.streams.finals import WrittenFinals
from streamer.tasks import Task, create
from streamer.tasks.raw import Outputs, Raw
from streamer.tasks.tensors import WithTensors
from tests.poison import among

Arrays = dict[str, NDArray[Any]]
Member = tuple[Any, Arrays, int]
BEAM = {"kind": "beam", "beam": 8}


@dataclass(frozen=True)
class World:
    """One task on a shipped model. ``spoil``: what to take out of a memory that it can be copied, and not stepped."""

    model: str
    spoil: str
    options: Mapping[str, Any] = field(default_factory=dict)
    wrap: Callable[[Task, Model], Task] = lambda task, model: task

    def make(self) -> Task:
        return self.wrap(create(model(self.model).manifest), model(self.model))


@cache
def model(name: str) -> Model:
    return Model.load(resolve(name))


@cache
def made(name: str) -> Task:
    return WORLDS[name].make()


def tensors(task: Task, model: Model) -> Task:
    return WithTensors(task, model.manifest)


WORLDS = {
    "greedy": World("digits", "options", {"decoder": {"kind": "greedy"}}),
    "beam": World("digits", "rules", {"decoder": BEAM}),
    "beam with numbers": World(
        "digits", "rules", {"decoder": BEAM, "numbers": "written"}, lambda task, model: WrittenFinals(task)
    ),
    "beam with punctuation": World(
        "digits",
        "task",
        {"decoder": BEAM, "numbers": "written", "text": "written"},
        lambda task, model: WrittenFinals(task),
    ),
    "lexicon": World("english", "rules", {"decoder": BEAM}),
    "transducer": World("transducer-digits", "options"),
    "running": World("vad", "steps"),
    "final": World("sentiment", "steps"),
    "raw": World("vad", "step", wrap=lambda task, model: Raw.of(model.manifest)),
    "tensors": World("digits", "step", {"tensors": True}, tensors),
    "beside tensors": World("digits", "rules", {"tensors": False}, tensors),
    "enhance": World("denoiser", "position"),
    "forecast": World("forecast-online", "readings"),
    "characters": World("characters", "position"),
    "notes": World("music", "ticks"),
    "rewrite": World("numbers", "step"),
    "word by word": World("written", "step"),
}


def outputs(name: str, seed: int) -> Arrays:
    """One row [1, T, ...] of each output, such as the model might give."""
    rng = np.random.default_rng(seed)
    manifest = model(name).manifest
    found: Arrays = {}
    for output in manifest.outputs:
        x = rng.normal(size=(1, *output.shape)) * 4
        if manifest.task in ("transcribe", "classify") and output is manifest.outputs[0]:
            x -= np.log(np.exp(x).sum(axis=-1, keepdims=True))
            x = np.exp(x) if manifest.task == "classify" else x
        if np.dtype(output.dtype).kind in "iu":
            x = rng.integers(0, 12, size=x.shape)
        found[output.name] = x.astype(output.dtype)
    return found


def told(events: Sequence[Any]) -> list[Any]:
    """Plain events; outputs are compared bit for bit."""
    return [
        {**event.to_arrays(), "outputs": {name: array.tobytes() for name, array in event.outputs.items()}}
        if isinstance(event, Outputs)
        else event.to_dict()
        for event in events
    ]


def after(task: Task, world: World, seed: int, chunks: int) -> Any:
    """A stream's memory after some chunks."""
    steps = model(world.model).manifest.steps
    memory = task.open(world.options)
    for chunk in range(chunks):
        task.step([memory], outputs(world.model, 100 * seed + chunk), [steps])
    return memory


def spoiled(task: Task, world: World) -> Any:
    """A memory that can be copied and not be stepped."""
    memory = after(task, world, 99, 2)
    setattr(memory, world.spoil, None)
    return memory


@pytest.mark.parametrize("broken", ["step", "copy"])
@pytest.mark.parametrize("name", WORLDS)
def test_a_poisoned_memory_costs_the_others_nothing(name: str, broken: str) -> None:
    world, task = WORLDS[name], made(name)
    steps = model(world.model).manifest.steps

    def run(seeds: list[int]) -> list[tuple[Any, ...]]:
        """Seed -1 is the poison. What each stream says, of this chunk and to its end, and the memory that is left."""
        poison = spoiled(task, world) if broken == "step" else object()
        memories = [after(task, world, seed, 2 + seed % 3) if seed >= 0 else poison for seed in seeds]
        rows = [outputs(world.model, 1000 + seed) for seed in seeds]
        given = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
        done = decode(task, memories, given, [steps] * len(seeds))
        assert sorted(done.errors) == [row for row, seed in enumerate(seeds) if seed < 0]
        assert (done.cause is not None) == (-1 in seeds)
        found: list[tuple[Any, ...]] = []
        for row, (seed, memory, events) in enumerate(zip(seeds, done.memories, done.events, strict=True)):
            if seed < 0:
                found.append((str(done.errors[row]), list(events)))
                assert not events
            else:
                found.append((told(events), task.save(memory), told(task.finish(memory))))
        return found

    for alone, beside in among([0, 1, 2], -1, run):
        assert beside == alone


@pytest.mark.parametrize("name", WORLDS)
def test_a_copy_goes_its_own_way(name: str) -> None:
    world, task = WORLDS[name], made(name)
    steps = model(world.model).manifest.steps
    memory = after(task, world, 5, 4)
    saved = task.save(memory)
    copy = task.copy(memory)
    chunks = [outputs(world.model, 2000 + chunk) for chunk in range(6)]
    first = [told(task.step([memory], chunk, [steps])[0]) for chunk in chunks]
    first.append(told(task.finish(memory)))
    assert task.save(copy) == saved
    again = task.copy(copy)
    second = [told(task.step([again], chunk, [steps])[0]) for chunk in chunks]
    assert [*second, told(task.finish(again))] == first
    assert task.save(copy) == saved
    assert task.save(again) == task.save(memory)


def test_a_batch_that_fails_only_together_goes_on_row_by_row() -> None:
    """Memory may be short for sixty rows at once; each of them alone has enough."""
    world = WORLDS["greedy"]
    task = world.make()
    step = task.step

    def short(memories: Sequence[Any], given: Mapping[str, NDArray[Any]], steps: Sequence[int]) -> Any:
        found = step(memories, given, steps)
        if len(memories) > 1:
            raise MemoryError
        return found

    task.step = short  # type: ignore[method-assign]
    memories = [after(made("greedy"), world, seed, 2) for seed in range(3)]
    rows = [outputs("digits", 1000 + seed) for seed in range(3)]
    given = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    steps = [model("digits").manifest.steps] * 3
    done = decode(task, memories, given, steps)
    assert isinstance(done.cause, MemoryError)
    assert not done.errors
    for seed, (memory, events) in enumerate(zip(done.memories, done.events, strict=True)):
        alone = after(made("greedy"), world, seed, 2)
        assert told(events) == told(step([alone], rows[seed], steps[:1])[0])
        assert task.save(memory) == task.save(alone)


def test_a_task_that_forgets_a_row_is_caught() -> None:
    task = WORLDS["greedy"].make()
    step = task.step
    task.step = lambda memories, given, steps: step(memories, given, steps)[1:]  # type: ignore[method-assign]
    rows = outputs("digits", 0)
    done = decode(task, [task.open({})], rows, [model("digits").manifest.steps])
    assert list(done.errors) == [0]


def test_every_task_stands_in_the_table() -> None:
    """Every task that is built stands in the table above."""
    folder = Path(__file__).parents[2] / "streamer" / "tasks"
    built = {line.split('"')[1] for line in (folder / "__init__.py").read_text().splitlines() if "task ==" in line}
    assert {model(world.model).manifest.task for world in WORLDS.values()} | {"raw"} == built
