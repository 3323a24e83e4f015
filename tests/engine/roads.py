"""The roads by which a stream goes through the engine, in one table, so that every law is held on each of them.

A road knows how to make data of a seed, what its whole stream gives by the plainest loop (no engine, no threads, no
batch), and how to compare: bit for bit, or up to float32 rounding where the batch is another one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.contract.manifest import Packed
from streamer.engine.model import Model
from streamer.engine.stepper import Stepper
from streamer.streams.finals import WrittenFinals
from streamer.streams.registry import Registry
from streamer.streams.session import Session
from streamer.tasks import create
from streamer.tasks.raw import Outputs
from tests.engine.support import Event, Events, feed_rows
from tests.rows import row_model, some_rows
from tests.toys import samples, toy_model

__all__ = ["ROADS", "Road", "answer", "whole"]

LENGTH = 4000
WRITTEN = {"text": "written", "numbers": "written", "endpoint": {"trailing": 0.03}}
GIVEN = {"c": [1.0, -0.5, 0.0, 0.25]}


@dataclass(frozen=True)
class Road:
    """``make(folder)`` writes the model, ``data(seed, count)`` gives rows, ``poison`` is one that fails a run.
    ``scale``: rows of a stream for each of :data:`LENGTH`, so that every road has some tens of chunks."""

    name: str
    make: Callable[[Path], Path]
    data: Callable[[int, int], NDArray[Any]]
    poison: Callable[[NDArray[Any]], NDArray[Any]]
    wishes: Mapping[str, Any] = field(default_factory=dict)
    scale: float = 1.0

    def rows(self, seed: int, length: int = LENGTH) -> NDArray[Any]:
        return self.data(seed, round(length * self.scale))

    def cuts(self, places: Sequence[int], rows: NDArray[Any]) -> list[NDArray[Any]]:
        """The rows in pieces, cut at these places of :data:`LENGTH`."""
        return np.split(rows, sorted(min(round(place * self.scale), len(rows)) for place in places))

    def open(self, registry: Registry, sink: Any, **more: Any) -> Session:
        return registry.open(model=self.name, sink=sink, **self.wishes, **more)


def whole(path: Path, rows: NDArray[Any], wishes: Mapping[str, Any]) -> list[Event]:
    """Numbered events of the whole stream, by a loop over one row. ``wishes``: a road's."""
    model = Model.load(path)
    conditions, options = wishes.get("conditions", {}), wishes.get("options", {})
    manifest, task = model.manifest, create(model.manifest)
    if options:
        task = WrittenFinals(task)
    given = {c.name: np.array([conditions[c.name]], c.dtype) for c in manifest.conditions if c.name in conditions}
    memory, stepper = task.open(options), Stepper(model, 1, given)
    left = -(-len(rows) // manifest.hop) + manifest.flush
    padded = np.zeros(-(-left * manifest.hop // manifest.chunk) * manifest.chunk, manifest.row_dtype)
    padded[: len(rows)] = rows
    events: list[Any] = []
    for chunk in padded.reshape(-1, 1, manifest.chunk):
        steps = min(manifest.steps, left)
        left -= steps
        outputs = stepper.step({name: np.ascontiguousarray(part) for name, part in manifest.fields(chunk).items()})
        events += task.step([memory], outputs, [steps])[0]
    events += task.finish(memory)
    found = [e.to_arrays() if isinstance(e, Outputs) else e.to_dict() for e in events]
    return [{**event, "seq": n} for n, event in enumerate([*found, {"type": "end", "position": len(rows)}], 1)]


def answer(road: Road, registry: Registry, pieces: Sequence[NDArray[Any]]) -> list[Event]:
    """The same through the engine."""
    sink = Events()
    session = road.open(registry, sink)
    feed_rows(session, pieces)
    session.end()
    sink.wait("end", "error")
    registry.discard(session)
    return sink.results


def same(got: Sequence[Event], expected: Sequence[Event], *, exact: bool = False) -> None:
    """Every event, number and position; tensors up to rounding, or ``exact``."""
    assert [event["type"] for event in got] == [event["type"] for event in expected]
    for one, other in zip(got, expected, strict=True):
        plain, wanted = ({k: v for k, v in event.items() if k != "outputs"} for event in (one, other))
        assert plain == wanted
        for name, array in other.get("outputs", {}).items():
            found = one["outputs"][name]
            assert (found.dtype, found.shape) == (array.dtype, array.shape)
            if exact:
                np.testing.assert_array_equal(found, array)
            else:
                np.testing.assert_allclose(found, array, rtol=1e-4, atol=1e-5)


def _sound_poison(rows: NDArray[Any]) -> NDArray[Any]:
    rows[len(rows) // 2] = 32767
    return rows


def _rows_poison(rows: NDArray[Any]) -> NDArray[Any]:
    rows["x"][len(rows) // 2] = 7.0
    return rows


def _one(seed: int, count: int) -> NDArray[Any]:
    return some_rows(seed, count)


def _several(seed: int, count: int) -> NDArray[Any]:
    return some_rows(seed, count, several=True)


def _row_road(name: str, chunk: int, *, several: bool = False, wishes: Mapping[str, Any] | None = None) -> Road:
    def make(folder: Path) -> Path:
        return row_model(folder, name=name, chunk=chunk, several=several, condition=wishes is not None, fails_on=7.0)

    scale = chunk * 12 / LENGTH
    return Road(name, make, _several if several else _one, _rows_poison, wishes or {}, scale)


def _talker(folder: Path) -> Path:
    """A sound is "john" or "three": finals that can be written."""
    lexicon = Packed.pack(b"john\tA\nthree\tB\n").model_dump()
    options = {"units": "phones", "lexicon": lexicon, "decoder": {"kind": "beam"}}
    return toy_model(folder, name="finals", fails_on=32767, options=options)


ROADS = [
    Road("sound", lambda folder: toy_model(folder, name="sound", fails_on=32767), samples, _sound_poison),
    Road("finals", _talker, samples, _sound_poison, {"options": WRITTEN}),
    _row_road("row", 1),
    _row_road("rows", 4),
    _row_road("several", 3, several=True),
    _row_road("conditions", 2, several=True, wishes={"conditions": GIVEN}),
]
