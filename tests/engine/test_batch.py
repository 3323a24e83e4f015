"""The batch runner: one member of a batch is poisoned, late or failing, and the others do not notice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.engine.arena import Arena, Slot
from streamer.engine.batch import BatchResult, BatchRunner
from streamer.engine.model import Model
from streamer.engine.stepper import Stepper
from tests.contract.several import reference, several, signal
from tests.toys import samples, toy_model

POISON = 32767
STREAMS = 7


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model.load(toy_model(tmp_path_factory.mktemp("toy"), fails_on=POISON, max_batch=8))


class Batch:
    """Streams in an arena of their own, and what each gives when it runs alone."""

    def __init__(self, model: Model, capacity: int = STREAMS, limit: int = 8, at: list[int] | None = None) -> None:
        self.model = model
        self.arena = Arena(model.manifest.states, capacity, 2**20, model.manifest.conditions)
        self.runner = BatchRunner(model, self.arena, limit)
        self.slots = [slot for _ in range(capacity) if (slot := self.arena.acquire())]
        self.slots = [self.slots[i] for i in at] if at else self.slots
        self.alone = [Stepper(model) for _ in self.slots]

    @property
    def where(self) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        indexes, generations = zip(*((slot.index, slot.generation) for slot in self.slots), strict=True)
        return np.array(indexes, np.intp), np.array(generations, np.int64)

    def chunks(self, seed: int) -> NDArray[np.int16]:
        chunk = self.model.manifest.chunk
        return np.stack([samples(seed + 100 * i, chunk) for i in range(len(self.slots))])

    def run(self, chunks: NDArray[Any]) -> BatchResult:
        """In rows, as the lanes of streams do."""
        for row, chunk in zip(self.runner.rows(len(chunks)), chunks, strict=False):
            row["pcm"][:] = chunk
        return self.runner.run_rows(len(chunks), *self.where)

    def check(self, result: BatchResult, chunks: NDArray[Any], but: int) -> None:
        """All others are what they are alone, bit for bit, and their states with them."""
        assert result.good.tolist() == [i != but for i in range(len(self.slots))]
        for i, (stepper, slot) in enumerate(zip(self.alone, self.slots, strict=True)):
            if i == but:
                continue
            want = stepper.step(chunks[i : i + 1])
            assert result.outputs["log_probs"][i].tobytes() == want["log_probs"][0].tobytes()
            for name, array in self.arena.read(slot).items():
                assert array.tobytes() == stepper.states[name][0].tobytes()


@pytest.mark.parametrize("poisoned", range(STREAMS))
def test_a_failing_row_costs_nobody_else_anything(model: Model, poisoned: int) -> None:
    batch = Batch(model)
    batch.check(batch.run(first := batch.chunks(1)), first, -1)
    before = batch.arena.read(batch.slots[poisoned])
    chunks = batch.chunks(2)
    chunks[poisoned, 50] = POISON
    result = batch.run(chunks)
    assert set(result.errors) == {poisoned}
    assert result.late == 0
    batch.check(result, chunks, poisoned)
    after = batch.arena.read(batch.slots[poisoned])
    assert all(after[name].tobytes() == array.tobytes() for name, array in before.items())  # as if it had not come


def test_each_failing_row_has_its_own_error(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Batch(model)
    run = model.run

    def broken(feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if len(bad := np.flatnonzero(feeds["pcm"][:, 0] == 99)):
            raise RuntimeError(f"of {len(feeds['pcm'])}, sample {feeds['pcm'][bad[0], 1]}")
        return run(feeds)

    monkeypatch.setattr(model, "run", broken)
    chunks = batch.chunks(3)
    for row in (0, 3, 4):
        chunks[row, :2] = 99, row
    result = batch.run(chunks)
    assert {row: str(error) for row, error in result.errors.items()} == {r: f"of 1, sample {r}" for r in (0, 3, 4)}
    assert result.good.tolist() == [False, True, True, False, False, True, True]


def test_a_batch_in_which_all_fail_says_so_of_each(model: Model) -> None:
    batch = Batch(model)
    result = batch.run(np.full_like(batch.chunks(0), POISON))
    assert sorted(result.errors) == list(range(STREAMS))
    assert not result.good.any()


def test_a_row_that_fails_alone_is_run_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Batch(model, capacity=1)
    calls: list[int] = []
    run = model.run
    monkeypatch.setattr(model, "run", lambda feeds: (calls.append(1), run(feeds))[1])
    result = batch.run(np.full_like(batch.chunks(0), POISON))
    assert list(result.errors) == [0]
    assert len(calls) == 1


def test_a_late_row_reaches_nobody(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its slot gets another owner while the run is on."""
    batch = Batch(model)
    left, run = batch.slots[2], model.run
    chunks = batch.chunks(4)
    where = batch.where

    def leaves(feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        outputs = run(feeds)
        batch.arena.release(left)
        assert batch.arena.acquire() == Slot(left.index, batch.arena.slot(left.index).generation)
        return outputs

    monkeypatch.setattr(model, "run", leaves)
    for row, chunk in zip(batch.runner.rows(STREAMS), chunks, strict=False):
        row["pcm"][:] = chunk
    result = batch.runner.run_rows(STREAMS, *where)
    monkeypatch.undo()
    assert result.late == 1
    assert not result.errors
    batch.check(result, chunks, 2)
    assert not any(array.any() for array in batch.arena.read(batch.arena.slot(left.index)).values())


@pytest.mark.parametrize("kind", ["nan", "failing", "late"])
@pytest.mark.parametrize("at", [list(range(8)), [5, 1, 7, 0, 6, 2, 4, 3]], ids=["side by side", "anywhere"])
def test_one_poisoned_member_whatever_is_wrong_with_it(tmp_path: Path, kind: str, at: list[int]) -> None:
    """In columns, as the lanes of sensors do; with slots that follow one another there is no copy."""
    model = Model.load(several(tmp_path))
    batch = Batch(model, 8, 4, at)
    given = [signal(seed, 3) for seed in range(8)]
    for slot, (_, _, speaker, language) in zip(batch.slots, given, strict=True):
        batch.arena.set_conditions(slot, {"speaker": speaker, "language": np.array([language])})
    if kind == "failing":
        run = model.run

        def fails(feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            if (feeds["gate"] == 7).any():
                raise RuntimeError("seven")
            return run(feeds)

        model.run = fails  # type: ignore[method-assign]
    indexes, generations = batch.where
    told: list[NDArray[np.float32]] = []
    for step in range(3):
        x = np.stack([one[0][step : step + 1] for one in given])
        gate = np.stack([one[1][step : step + 1] for one in given])
        if step == 1:
            x[2], gate[2] = (np.nan, gate[2]) if kind == "nan" else (x[2], 7 if kind == "failing" else gate[2])
            if kind == "late":
                batch.arena.retire(batch.slots[2])
        y = np.zeros((8, 1, 3), np.float32)
        for part, result in batch.runner.run(indexes, generations, {"x": x, "gate": gate}):
            y[part] = result.outputs["y"][: part.stop - part.start]
            wrong = part.start == 0 and (step == 1 or (step == 2 and kind == "late")) and kind != "nan"
            assert result.good.tolist() == [not (wrong and row == 2) for row in range(4)]
            assert result.late == int(wrong and kind == "late")
        told.append(y[:, 0])
    for stream, one in enumerate(given):
        if stream != 2:
            want = reference(*one)
            np.testing.assert_allclose(np.stack(told)[:, stream], want, rtol=1e-5, atol=1e-6)
