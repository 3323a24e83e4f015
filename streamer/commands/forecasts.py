"""What ``streamer forecast`` writes: a table, JSON lines, CSV, and the scores as a file."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from streamer.commands import CommandError
from streamer.sensors import Sensor, Sensors, Told
from streamer.sources.times import show_time
from streamer.tasks.score import WINDOW

__all__ = ["CsvOutput", "JsonOutput", "TableOutput", "table", "write_scores"]

#: For a table that goes into a pipe.
WIDTH = 140


class Output:
    def told(self, told: Told, timed: bool) -> None:
        """A reading and its forecast, as they come."""

    def finished(self, timed: bool) -> None:
        """No more come."""


class JsonOutput(Output):
    """``last``: of each stream only the last so many, at the end."""

    def __init__(self, sensors: Sensors, last: int | None) -> None:
        self._kept = None if last is None else Kept(last)

    def told(self, told: Told, timed: bool) -> None:
        if self._kept is None:
            print(_json_line(told, timed), flush=True)
        else:
            self._kept.add(told)

    def finished(self, timed: bool) -> None:
        for told in () if self._kept is None else self._kept:
            print(_json_line(told, timed))


class CsvOutput(Output):
    def __init__(self, sensors: Sensors, last: int) -> None:
        self._sensors, self._kept = sensors, Kept(last)

    def told(self, told: Told, timed: bool) -> None:
        self._kept.add(told)

    def finished(self, timed: bool) -> None:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["stream", "from", "ahead", "time", *self._sensors.levels])
        for told in self._kept:
            if told.forecast is None:
                continue
            step = told.sensor.cadence.pace
            for ahead, quantiles in enumerate(zip(*told.forecast.quantiles.values(), strict=True), 1):
                at = "" if step is None else _time(told.time + ahead * step, timed)
                numbers = (_digits(quantile) for quantile in quantiles)
                writer.writerow([told.sensor.name, _time(told.time, timed), ahead, at, *numbers])


class TableOutput(Output):
    def __init__(self, sensors: Sensors) -> None:
        self._sensors = sensors

    def finished(self, timed: bool) -> None:
        if not self._sensors.streams:
            return
        console = Console(highlight=False) if sys.stdout.isatty() else Console(width=WIDTH, highlight=False)
        console.print(table(self._sensors))
        if left := left_out(self._sensors.streams.values()):
            console.print(left)


class Kept:
    """The last readings of each stream; iterated in the order in which they came."""

    def __init__(self, last: int) -> None:
        self._last = last
        self._count = 0
        self._streams: dict[str, deque[tuple[int, Told]]] = {}

    def add(self, told: Told) -> None:
        self._count += 1
        name = told.sensor.name
        if name not in self._streams:
            self._streams[name] = deque(maxlen=self._last)
        self._streams[name].append((self._count, told))

    def __iter__(self) -> Any:
        found = sorted((item for kept in self._streams.values() for item in kept), key=lambda item: item[0])
        return (told for _, told in found)


def table(sensors: Sensors, most: int | None = None) -> Table:
    """One row a stream, of the first ``most`` streams."""
    horizon, (low, _, high) = sensors.horizon, sensors.outer
    inside = f"in {100 * (float(high) - float(low)):.0f} %"
    names = ("readings", "missing", "MAE 1", "MASE 1", f"MAE 1-{horizon}", f"MASE 1-{horizon}", inside)
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("stream", overflow="fold")
    for name in names:
        made.add_column(name, justify="right")
    made.add_column(f"next, {float(low):.0%} to {float(high):.0%}", no_wrap=True)
    streams = list(sensors.streams.values())
    for sensor in streams[:most]:
        found = sensor.score.summary()
        first, every = found["1"], found["all"]
        made.add_row(
            sensor.name,
            str(sensor.readings),
            str(sensor.missing),
            *(_short(x) for x in (first.mae, first.mase, every.mae, every.mase)),
            "" if every.coverage is None else f"{every.coverage:.1%}",
            _next(sensor, sensors),
        )
    if most is not None and len(streams) > most:
        made.add_row(f"and {len(streams) - most} more")
    return made


def left_out(streams: Iterable[Sensor]) -> str:
    """What the readings' times had to be forgiven, in words; empty: nothing."""
    all = [sensor.cadence for sensor in streams]
    parts = (
        (sum(c.masked for c in all), "steps without a reading"),
        (sum(c.duplicates for c in all), "duplicates left out"),
        (sum(c.late for c in all), "late readings left out"),
        (sum(c.gaps for c in all), "gaps longer than is filled"),
        (sum(c.restarts for c in all), "times that a clock was set back"),
    )
    return ", ".join(f"{count} {what}" for count, what in parts if count)


def write_scores(path: Path, sensors: Sensors) -> None:
    found = {}
    for name, sensor in sensors.streams.items():
        clock = sensor.cadence
        counts = {key: getattr(clock, key) for key in ("masked", "duplicates", "late", "gaps", "restarts")}
        own = {"readings": sensor.readings, "missing": sensor.missing, "step": clock.pace}
        life, late = (
            {band: asdict(scores) for band, scores in sensor.score.summary(late=late).items()} for late in (False, True)
        )
        found[name] = own | counts | {"life": life, f"last {WINDOW}": late}
    try:
        path.write_text(json.dumps({"horizon": sensors.horizon, "streams": found}, indent=1) + "\n", "utf-8")
    except OSError as error:
        raise CommandError(f"can't write {path}: {error.strerror}") from error


def _next(sensor: Sensor, sensors: Sensors) -> str:
    told = sensor.last
    if told is None or told.forecast is None:
        return ""
    low, middle, high = (told.forecast.quantiles[level][0] for level in sensors.outer)
    return f"{middle:.4g}  ({low:.4g} .. {high:.4g})"


def _json_line(told: Told, timed: bool) -> str:
    quantiles = {} if told.forecast is None else told.forecast.quantiles
    lists = ", ".join(f'"{level}": [{", ".join(map(_digits, values))}]' for level, values in quantiles.items())
    value = "null" if told.value is None else json.dumps(told.value)
    time = json.dumps(_time(told.time, timed))
    anomaly = "null"
    if told.value is not None and told.forecast is not None and told.forecast.anomaly is not None:
        anomaly = _digits(told.forecast.anomaly)
    stream = json.dumps(told.sensor.name)
    return f'{{"stream": {stream}, "time": {time}, "value": {value}, "quantiles": {{{lists}}}, "anomaly": {anomaly}}}'


def _digits(value: float) -> str:
    """A float32 has seven of them; JSON knows no NaN."""
    return f"{value:.7g}" if math.isfinite(value) else "null"


def _time(time: float, timed: bool) -> str | float:
    return show_time(time) if timed else time


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
