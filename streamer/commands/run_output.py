"""Outputs of ``streamer run`` as CSV, NDJSON or NPY."""

from __future__ import annotations

import csv
import itertools
import json
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self, cast

import numpy as np
from numpy.typing import NDArray

from streamer.contract.manifest import Manifest
from streamer.tasks.raw import listed

__all__ = ["Writer", "make_writer"]

Arrays = dict[str, NDArray[Any]]


class Writer(Protocol):
    #: Number of output steps written.
    steps: int

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
    def write(self, outputs: Arrays) -> None: ...


def make_writer(kind: str, path: Path | None, manifest: Manifest) -> Writer:
    """The writer for a path, ``None`` for standard output. Raises ``ValueError`` for an unknown format."""
    if kind == "csv":
        return _Csv(path, manifest)
    if kind in ("ndjson", "jsonl", "json"):
        return _Ndjson(path, manifest)
    if kind in ("npy", "npz"):
        return _Numpy(path, manifest, one=kind == "npy")
    raise ValueError(f"no format {kind!r}: csv, ndjson, npy and npz are (--format)")


class _Text:
    def __init__(self, path: Path | None, manifest: Manifest) -> None:
        self._path, self.manifest = path, manifest
        self._file: IO[str] = sys.stdout
        self.steps = 0

    def __enter__(self) -> Self:
        if self._path is not None:
            self._file = self._path.open("w", encoding="utf-8", newline="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._path is not None:
            self._file.close()

    def _each_step(self, outputs: Arrays) -> list[dict[str, NDArray[Any]]]:
        """Outputs of each step by name. An output with one row for several steps appears with the last of them."""
        first = self.manifest.outputs[0].shape[0]
        rows = len(outputs[self.manifest.outputs[0].name])
        found: list[dict[str, NDArray[Any]]] = [{} for _ in range(rows)]
        for output in self.manifest.outputs:
            array = outputs[output.name]
            every = max(1, first // output.shape[0])
            for row, value in enumerate(array):
                found[min((row + 1) * every, rows) - 1][output.name] = value
        return found


class _Csv(_Text):
    """A header, then a line for each step: a column for each number of each output, ``y`` or ``y[0]``, ``y[1,2]``."""

    def __enter__(self) -> Self:
        super().__enter__()
        self._writer = csv.writer(self._file, lineterminator="\n")
        names = [_columns(output.name, output.shape[1:]) for output in self.manifest.outputs]
        self._writer.writerow(["step", *itertools.chain.from_iterable(names)])
        return self

    def write(self, outputs: Arrays) -> None:
        for step in self._each_step(outputs):
            cells: list[Any] = [self.steps]
            for output in self.manifest.outputs:
                width = int(np.prod(output.shape[1:], dtype=np.int64))
                cells += _cells(step[output.name]) if output.name in step else [""] * width
            self._writer.writerow(cells)
            self.steps += 1
        self._file.flush()


class _Ndjson(_Text):
    """``{"step": 0, "y": [...]}``, a line for each step; what JSON has no number for is ``null``."""

    def write(self, outputs: Arrays) -> None:
        for step in self._each_step(outputs):
            line = {"step": self.steps} | {name: listed(np.asarray(value)) for name, value in step.items()}
            self._file.write(json.dumps(line) + "\n")
            self.steps += 1
        self._file.flush()


class _Numpy:
    """Writes all outputs at the end, also those before a bad row: one array, or several by name."""

    def __init__(self, path: Path | None, manifest: Manifest, *, one: bool) -> None:
        names = [output.name for output in manifest.outputs]
        if one and len(names) > 1:
            raise ValueError(f"the model has several outputs ({', '.join(names)}): write .npz, .csv or .ndjson")
        self._path, self._one = path, one
        self._parts: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
        self._first = names[0]
        self.steps = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        arrays = {name: np.concatenate(parts) for name, parts in self._parts.items() if parts}
        if error is not None and not (isinstance(error, ValueError) and self._first in arrays):
            return
        file: IO[bytes] = sys.stdout.buffer if self._path is None else self._path.open("wb")
        try:
            if self._one:
                np.save(file, arrays[self._first])
            else:
                np.savez(file, **cast(Any, arrays))
        finally:
            if self._path is not None:
                file.close()

    def write(self, outputs: Arrays) -> None:
        for name, array in outputs.items():
            self._parts[name].append(array)
        self.steps += len(outputs[self._first])


def _cells(value: NDArray[Any]) -> list[str]:
    """A float32 with as few digits as identify it; true and false as 1 and 0."""
    array = np.asarray(value)
    return [str(number) for number in (array.astype(np.int8) if array.dtype.kind == "b" else array).ravel()]


def _columns(name: str, shape: tuple[int, ...]) -> list[str]:
    if not shape or shape == (1,):
        return [name]
    return [f"{name}[{','.join(map(str, index))}]" for index in np.ndindex(*shape)]
