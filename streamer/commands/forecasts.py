"""Outputs of ``streamer forecast``: a table, JSON lines, CSV, Parquet, and the scores as a file."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from streamer.commands import CommandError, why
from streamer.sensors.columns import Forecasts
from streamer.sensors.digits import rounded, shown
from streamer.sensors.ingest import Fleet
from streamer.sensors.layout import RowLayout
from streamer.sensors.look import SensorView, by_label, label
from streamer.sources.times import show_time

__all__ = [
    "CsvOutput",
    "ForecastRow",
    "JsonForecasts",
    "ParquetOutput",
    "TableOutput",
    "need_pyarrow",
    "table",
    "write_scores",
]

#: Columns of a table that is written into a pipe.
WIDTH = 140


@dataclass(frozen=True, slots=True)
class ForecastRow:
    """One reading and the forecast after it. ``quantiles``: float32 [H, Q], ``None`` if the stream has had no value
    yet."""

    stream: str
    time: float
    value: float | None
    step: float | None
    quantiles: NDArray[np.float32] | None
    anomaly: float

    @classmethod
    def each(cls, forecasts: Forecasts) -> Iterator[ForecastRow]:
        """One item for each reading; for rows, one for each target."""
        count, targets = len(forecasts), forecasts.targets or ("",)
        times, steps = forecasts.times.tolist(), forecasts.steps.tolist()
        values, anomalies, known = (
            array.reshape(count, len(targets)) for array in (forecasts.values, forecasts.anomalies, forecasts.known)
        )
        quantiles = forecasts.quantiles.reshape(count, len(targets), *forecasts.quantiles.shape[-2:])
        for at, name in enumerate(forecasts.names):
            for number, target in enumerate(targets):
                curves = quantiles[at, number] if known[at, number] else None
                value, anomaly = float(values[at, number]), float(anomalies[at, number])
                yield cls(label(name, target), times[at], _there(value), _there(steps[at]), curves, anomaly)

    def own(self) -> ForecastRow:
        """A copy to keep, which does not hold the batch's arrays in memory."""
        return self if self.quantiles is None else replace(self, quantiles=self.quantiles.copy())


class ForecastOutput:
    def add(self, row: ForecastRow, timed: bool) -> None:
        """Take a reading and its forecast."""

    def finished(self, timed: bool) -> None:
        """All readings have been added."""


class JsonForecasts(ForecastOutput):
    """JSON lines. ``last``: only the last so many forecasts of each stream, at the end."""

    def __init__(self, fleet: Fleet, last: int | None) -> None:
        self._levels, self._kept = fleet.layout.levels, None if last is None else Kept(last)

    def add(self, row: ForecastRow, timed: bool) -> None:
        if self._kept is None:
            print(_json_line(row, self._levels, timed), flush=True)
        else:
            self._kept.add(row)

    def finished(self, timed: bool) -> None:
        for row in () if self._kept is None else self._kept:
            print(_json_line(row, self._levels, timed))


class LongOutput(ForecastOutput):
    """Writes the last forecasts of each stream, one row for each step ahead."""

    def __init__(self, fleet: Fleet, last: int) -> None:
        self._levels, self._kept = fleet.layout.levels, Kept(last)

    def add(self, row: ForecastRow, timed: bool) -> None:
        self._kept.add(row)

    @property
    def header(self) -> list[str]:
        return ["stream", "from", "ahead", "time", *self._levels]

    def rows(self) -> Iterator[tuple[str, float, int, float | None, list[float]]]:
        """Rows of stream, time of the reading, steps ahead, forecast time, quantiles."""
        for row in self._kept:
            if row.quantiles is not None:
                for ahead, quantiles in enumerate(rounded(row.quantiles).tolist(), 1):
                    yield row.stream, row.time, ahead, row.step and row.time + ahead * row.step, quantiles


class CsvOutput(LongOutput):
    def finished(self, timed: bool) -> None:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(self.header)
        for stream, begun, ahead, at, quantiles in self.rows():
            time = "" if at is None else _time(at, timed)
            writer.writerow([stream, _time(begun, timed), ahead, time, *map(_digits, quantiles)])


class ParquetOutput(LongOutput):
    def __init__(self, fleet: Fleet, last: int, path: Path) -> None:
        super().__init__(fleet, last)
        self._path = path

    def finished(self, timed: bool) -> None:
        """Write the file; times are timestamps in UTC, to the microsecond, or numbers for readings without times."""
        import pyarrow as pa
        from pyarrow import parquet

        rows = list(self.rows())  # none of streams that have had no value
        streams, begun, ahead, times, quantiles = zip(*rows, strict=True) if rows else ([],) * 5
        moment = pa.timestamp("us", "UTC") if timed else pa.float64()

        def moments(found: Sequence[float | None]) -> pa.Array:
            return pa.array([time if time is None or not timed else round(time * 1e6) for time in found], moment)

        curves = np.array(quantiles, np.float64).reshape(-1, len(self._levels)).T
        columns = [pa.array(streams, pa.string()), moments(begun), pa.array(ahead, pa.int32()), moments(times)]
        made = pa.table([*columns, *map(pa.array, curves)], names=self.header)
        try:
            parquet.write_table(made, self._path)
        except OSError as error:
            raise CommandError(f"can't write {self._path}: {why(error)}") from error


def need_pyarrow(path: Path) -> None:
    """Check for pyarrow before anything runs. Raises :class:`CommandError`."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise CommandError("--parquet needs pyarrow: pip install 'streamer[parquet]'", 2) from error
    if not path.absolute().parent.is_dir():
        raise CommandError(f"--parquet {path}: there is no folder {path.parent}: make it first", 2)


class TableOutput(ForecastOutput):
    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def finished(self, timed: bool) -> None:
        if not self._fleet.slots:
            return
        console = Console(highlight=False) if sys.stdout.isatty() else Console(width=WIDTH, highlight=False)
        console.print(table(self._fleet, width=console.width))
        if left := left_out(self._fleet):
            console.print(left)


class Kept:
    """The last readings of each stream, iterated in order of arrival."""

    def __init__(self, last: int) -> None:
        self._last = last
        self._count = 0
        self._streams: dict[str, deque[tuple[int, ForecastRow]]] = {}

    def add(self, row: ForecastRow) -> None:
        self._count += 1
        if row.stream not in self._streams:
            self._streams[row.stream] = deque(maxlen=self._last)
        self._streams[row.stream].append((self._count, row.own()))

    def __len__(self) -> int:
        return len(self._streams)

    def __iter__(self) -> Iterator[ForecastRow]:
        found = sorted((item for kept in self._streams.values() for item in kept), key=lambda item: item[0])
        return (row for _, row in found)


def table(fleet: Fleet, most: int | None = None, width: int = WIDTH) -> Table:
    """A table with one row for each of the first ``most`` streams, and the columns that fit into ``width``."""
    horizon, (low, _, high) = fleet.layout.horizon, fleet.layout.outer
    inside = f"in {100 * (float(high) - float(low)):.0f} %"
    # each with the width from which on it is shown
    names = (("readings", 70), ("missing", 128), ("MAE 1", 94), ("MASE 1", 60), (f"MAE 1-{horizon}", 116),
             (f"MASE 1-{horizon}", 106), (inside, 82))  # fmt: skip
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    if narrow := width < 60:
        made.add_column("stream", no_wrap=True, overflow="ellipsis")
    else:
        made.add_column("stream", overflow="fold")
    shown = [number for number, (_, least) in enumerate(names) if width >= least]
    for number in shown:
        made.add_column(names[number][0], justify="right")
    made.add_column("next" if narrow else f"next, {float(low):.0%} to {float(high):.0%}", no_wrap=True)
    for sensor in by_label(fleet, most).values():
        first, every = sensor.life["1"], sensor.life["all"]
        cells = (
            str(sensor.readings),
            str(sensor.missing),
            *(_short(x) for x in (first.mae, first.mase, every.mae, every.mase)),
            "" if every.coverage is None else f"{every.coverage:.1%}",
        )
        made.add_row(sensor.label, *(cells[number] for number in shown), _next(sensor, fleet.layout))
    if most is not None and len(fleet.slots) > most:
        made.add_row(f"and {len(fleet.slots) - most} more")
    return made


def left_out(fleet: Fleet) -> str:
    """Counts of gaps, clock changes and readings left out, in words; empty if there are none."""
    parts = (
        ("masked", "steps without a reading"),
        ("duplicates", "duplicates left out"),
        ("late", "late readings left out"),
        ("gaps", "gaps longer than is filled"),
        ("restarts", "times that a clock was set back"),
        ("changes", "changes of a step"),
    )
    counts = {kind: int(counts.sum()) for kind, counts in fleet.table.timelines.counts.items()}
    return ", ".join(f"{counts[kind]} {what}" for kind, what in parts if counts[kind])


def write_scores(path: Path, fleet: Fleet) -> None:
    found = {name: sensor.scores() for name, sensor in by_label(fleet).items()}
    try:
        path.write_text(json.dumps({"horizon": fleet.layout.horizon, "streams": found}, indent=1) + "\n", "utf-8")
    except OSError as error:
        raise CommandError(f"can't write {path}: {why(error)}") from error


def _next(sensor: SensorView, layout: RowLayout) -> str:
    if sensor.quantiles is None:
        return ""
    low, middle, high = (float(sensor.quantiles[0, layout.levels.index(level)]) for level in layout.outer)
    return f"{shown(middle, high - low)}  ({shown(low, high - low)} .. {shown(high, high - low)})"


def _json_line(row: ForecastRow, levels: Sequence[str], timed: bool) -> str:
    curves = [] if row.quantiles is None else rounded(row.quantiles).T.tolist()
    lists = ", ".join(f'"{level}": [{", ".join(map(_digits, c))}]' for level, c in zip(levels, curves, strict=False))
    value = "null" if row.value is None else json.dumps(row.value)
    time = json.dumps(_time(row.time, timed))
    anomaly = "null" if row.value is None or row.quantiles is None else f"{row.anomaly:.7g}"
    stream = json.dumps(row.stream)
    return f'{{"stream": {stream}, "time": {time}, "value": {value}, "quantiles": {{{lists}}}, "anomaly": {anomaly}}}'


def _there(value: float) -> float | None:
    return None if math.isnan(value) else value


def _digits(value: float) -> str:
    """A number in JSON; ``null`` for NaN, which JSON lacks."""
    return f"{value!r}".removesuffix(".0") if math.isfinite(value) else "null"


def _time(time: float, timed: bool) -> str | float:
    return show_time(time) if timed else time


def _short(value: float | None) -> str:
    return "" if value is None else shown(value, 10 * value) if 1e3 <= value < 1e15 else f"{value:.3g}"
