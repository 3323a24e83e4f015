"""Rows for ``streamer run`` from CSV, NDJSON and NPY, as they come; errors name the line."""

from __future__ import annotations

import csv
import io
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from streamer.contract.manifest import Manifest

__all__ = ["read_rows"]

#: Rows of a file that are run together: large enough for few calls, small enough for little memory.
PIECE = 4096
NPY, ZIP = b"\x93NUMPY", b"PK\x03\x04"

Inputs = dict[str, Any]


@contextmanager
def read_rows(path: str, manifest: Manifest, columns: Sequence[str] | None) -> Iterator[Iterator[Inputs]]:
    """Pieces of rows by input name. The format is detected by the first bytes. Raises ``ValueError``."""
    if path == "-":
        yield _sniff("standard input", cast(io.BufferedReader, sys.stdin.buffer), manifest, columns, 1)
        return
    if not Path(path).is_file():
        raise ValueError(f"{path}: there is no such file")
    with Path(path).open("rb") as file:
        yield _sniff(path, file, manifest, columns, PIECE)


def _sniff(
    name: str, file: io.BufferedReader, manifest: Manifest, columns: Sequence[str] | None, piece: int
) -> Iterator[Inputs]:
    head = file.peek(8)[:8]
    if head.startswith((NPY, ZIP)):
        return _arrays(name, file.read(), manifest)
    first = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    lines = _lines(name, file)
    if first in (b"{", b"["):
        return _together(_ndjson(name, lines, manifest), piece)
    return _together(_csv(name, lines, manifest, columns), piece)


def _together(rows: Iterator[Inputs], count: int) -> Iterator[Inputs]:
    """Pieces of ``count`` rows. The rows before an error are given before it is raised."""
    error: ValueError | None = None
    while error is None:
        piece: list[Inputs] = []
        try:
            piece.extend(itertools.islice(rows, count))
        except ValueError as raised:
            error = raised
        if piece:
            yield {key: list(itertools.chain.from_iterable(row[key] for row in piece)) for key in piece[0]}
        elif error is None:
            return
    raise error


def _lines(name: str, file: BinaryIO) -> Iterator[str]:
    for number, line in enumerate(file, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{name}, line {number}: is not UTF-8 text ({error.reason})") from None


def _arrays(name: str, data: bytes, manifest: Manifest) -> Iterator[Inputs]:
    try:
        found = np.load(io.BytesIO(data), allow_pickle=False)
        arrays = {key: found[key] for key in found.files} if isinstance(found, np.lib.npyio.NpzFile) else None
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{name}: can't be read as NumPy's format ({error})") from error
    if arrays is None:
        arrays = {manifest.input.name: found}
    rows = max((len(array) for array in arrays.values() if array.ndim), default=0)
    for begin in range(0, rows, PIECE):
        yield {key: array[begin : begin + PIECE] for key, array in arrays.items()}


def _ndjson(name: str, lines: Iterable[str], manifest: Manifest) -> Iterator[Inputs]:
    inputs = [spec.name for spec in manifest.inputs]
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{name}, line {number}: is no JSON ({error})") from None
        if isinstance(row, dict):
            if missing := [key for key in inputs if key not in row]:
                raise ValueError(f"{name}, line {number}: has no {missing[0]!r}; the inputs are {', '.join(inputs)}")
            yield {key: [row[key]] for key in inputs}
        elif len(inputs) == 1:
            yield {inputs[0]: [row]}
        else:
            raise ValueError(f"{name}, line {number}: give the inputs by name, {', '.join(inputs)}")


def _csv(name: str, lines: Iterable[str], manifest: Manifest, columns: Sequence[str] | None) -> Iterator[Inputs]:
    widths = {i.name: int(np.prod(i.chunk_shape[1:], dtype=np.int64)) for i in manifest.inputs}
    wanted = sum(widths.values())
    pick: list[int] | None = None
    for number, cells in enumerate(csv.reader(lines), 1):
        if not any(cell.strip() for cell in cells):
            continue
        if number == 1 and not all(map(_is_number, cells)):
            pick = _picked(name, [cell.strip() for cell in cells], columns)
            continue
        if number == 1 and columns:
            raise ValueError(f"{name}: has no header, so --columns {','.join(columns)} can't be found")
        chosen = cells if pick is None else [cells[at] if at < len(cells) else "" for at in pick]
        if len(chosen) != wanted:
            parts = ", ".join(f"{width} of {key!r}" for key, width in widths.items())
            raise ValueError(
                f"{name}, line {number}: {len(chosen)} numbers, and a row has {wanted} ({parts}); "
                "--columns a,b,c chooses those of a table"
            )
        values = [_number(name, number, cell) for cell in chosen]
        row: Inputs = {}
        for spec in manifest.inputs:
            own, values = values[: widths[spec.name]], values[widths[spec.name] :]
            row[spec.name] = np.array(own).reshape(1, *spec.chunk_shape[1:])
        yield row


def _picked(name: str, header: list[str], columns: Sequence[str] | None) -> list[int] | None:
    if columns is None:
        return None
    if unknown := [column for column in columns if column not in header]:
        raise ValueError(f"{name}: has no column {unknown[0]!r}; it has {', '.join(header)}")
    return [header.index(column) for column in columns]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell.strip() == ""
    return True


def _number(name: str, line: int, cell: str) -> float:
    """A cell's number; NaN for an empty cell, which not every model accepts."""
    try:
        return float(cell) if cell.strip() else float("nan")
    except ValueError:
        raise ValueError(f"{name}, line {line}: {cell!r} is no number") from None
