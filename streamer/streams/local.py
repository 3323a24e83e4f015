"""A model in this process, without a daemon:

    stream = streamer.load("plant.onnx").stream()
    outputs = stream.step(rows)                    # {"y": array [steps, ...]}

The same rows give the same outputs as through a daemon: the chunk law and the sleep law hold here, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.contract.manifest import Manifest
from streamer.engine.catalogue import resolve
from streamer.engine.model import Model
from streamer.engine.stepper import Stepper
from streamer.streams.chunker import Chunker
from streamer.streams.rows import RowReader
from streamer.streams.snapshot import Snapshot, SnapshotError

__all__ = ["LocalModel", "LocalStream", "load"]

Arrays = dict[str, NDArray[Any]]
#: Rows of one input, or of several by name: arrays, or lists of numbers.
Rows = NDArray[Any] | list[Any] | Mapping[str, Any]
#: Rows that wait for the rest of their chunk are fewer than a chunk: no bound is ever met.
UNBOUNDED = 2**62


def load(name_or_path: str | Path, *, threads: int = 1) -> LocalModel:
    """A shipped model's name, or a file. ``threads``: of one run. Raises :class:`~streamer.engine.model.ModelError`."""
    return LocalModel(Model.load(resolve(str(name_or_path)), threads=threads))


class LocalModel:
    """Shared weights. ``manifest`` describes inputs, chunk and outputs."""

    def __init__(self, model: Model) -> None:
        self.model = model

    @property
    def manifest(self) -> Manifest:
        return self.model.manifest

    def stream(self, conditions: Mapping[str, Any] | None = None) -> LocalStream:
        """A new stream, from its start. ``conditions``: inputs set once, by name. Raises
        :class:`~streamer.refusals.BadRows` for invalid conditions."""
        return LocalStream(self.model, conditions)

    def restore(self, data: bytes) -> LocalStream:
        """The stream that :meth:`LocalStream.save` wrote. Raises :class:`~streamer.streams.snapshot.SnapshotError` for
        damaged bytes, and for those of another file."""
        stream = LocalStream(self.model, None)
        stream._load(Snapshot.from_bytes(data))
        return stream


class LocalStream:
    """One stream, of one thread at a time. ``position``: rows that were taken."""

    def __init__(self, model: Model, conditions: Mapping[str, Any] | None) -> None:
        self._model = model
        manifest = model.manifest
        self._reader = RowReader(manifest)
        given = self._reader.conditions(conditions or {})
        self._conditions = {c.name: given.get(c.name, np.zeros(c.shape, c.dtype)) for c in manifest.conditions}
        self._stepper = self._make_stepper()
        self._chunker = Chunker(
            manifest.chunk, manifest.hop, manifest.flush, UNBOUNDED, "wait", dtype=manifest.row_dtype
        )
        self._chunk = {i.name: np.zeros((1, *i.chunk_shape), i.dtype) for i in manifest.inputs}
        self.position = 0

    def step(self, rows: Rows) -> Arrays:
        """``rows`` [n, *row_shape] of the input, or by name for several inputs; one row may come without its axis.

        Returns the outputs of all chunks that are now whole, [steps, ...] by name; without a whole chunk they have 0
        steps. Rows after the last whole chunk wait for the rest. Raises :class:`~streamer.refusals.BadRows`: then
        nothing was taken; and ``RuntimeError`` after :meth:`finish`.
        """
        self._check_open()
        inputs = dict(rows) if isinstance(rows, Mapping) else {self._model.manifest.input.name: rows}
        taken = self._reader.of_inputs({name: self._with_axis(name, values) for name, values in inputs.items()})
        self._chunker.push(np.array(taken))  # the caller may write into his array again
        self.position += len(taken)
        return self._run()

    def finish(self) -> Arrays:
        """End the stream; returns the remaining outputs: of the waiting rows, and those that the model holds back.

        Raises ``RuntimeError`` the second time."""
        self._check_open()
        self._chunker.end()
        return self._run()

    def save(self) -> bytes:
        """The stream as bytes; a restored stream continues like an uninterrupted one."""
        states = {name: array[0] for name, array in self._stepper.states.items()} | self._conditions
        pending = self._chunker.rest()
        return Snapshot(
            id="local",
            model=self._model.manifest.name,
            digest=self._model.digest,
            sample_rate=None,
            overflow="wait",
            options={},
            received=self.position,
            consumed=self.position - len(pending),
            origin=0,
            seq=0,
            steps_left=self._chunker.steps_left,
            dropped=0,
            finished=self._chunker.done,
            pending=pending,
            states=states,
        ).to_bytes()

    def _load(self, saved: Snapshot) -> None:
        if saved.digest != self._model.digest:
            raise SnapshotError(f"it was made by another file of the model {saved.model} ({saved.digest[:12]})")
        self._conditions = {name: saved.states[name] for name in self._conditions}
        self._stepper = self._make_stepper()
        self._stepper.states = {pair.in_: saved.states[pair.in_][None] for pair in self._model.manifest.states}
        self._chunker.restore(saved.rows(self._chunker.dtype), saved.steps_left)
        self.position = saved.received

    def _check_open(self) -> None:
        if self._chunker.steps_left >= 0:
            raise RuntimeError(f"the stream has ended at row {self.position}: open another one")

    def _make_stepper(self) -> Stepper:
        return Stepper(self._model, 1, {name: array[None] for name, array in self._conditions.items()})

    def _with_axis(self, name: str, values: Any) -> Any:
        shapes = {i.name: i.chunk_shape[1:] for i in self._model.manifest.inputs}
        if isinstance(values, np.ndarray) and name in shapes and values.shape == shapes[name]:
            return values[None]
        return values

    def _run(self) -> Arrays:
        manifest = self._model.manifest
        parts: dict[str, list[NDArray[Any]]] = {
            o.name: [np.zeros((0, *o.shape[1:]), o.dtype)] for o in manifest.outputs
        }
        while self._chunker.ready:
            real = self._chunker.take({name: array[0] for name, array in self._chunk.items()})
            outputs = self._stepper.step(self._chunk)
            for output in manifest.outputs:
                # an output with fewer rows than steps has one row for several steps
                parts[output.name].append(outputs[output.name][0, : -(-output.shape[0] * real // manifest.steps)])
        return {name: np.concatenate(part) for name, part in parts.items()}
