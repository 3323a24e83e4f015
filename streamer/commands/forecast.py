"""``streamer forecast``: sensors from files and standard input."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamer.commands import CommandError, complain
from streamer.commands.completion import model_names

if TYPE_CHECKING:
    from streamer.commands.forecasts import ForecastRow
    from streamer.sensors.columns import Forecasts, Reading, ReadingBatch, Row
    from streamer.sensors.ingest import Fleet
    from streamer.sources.readings import Readings

__all__ = ["forecast"]

REDRAW_SECONDS = 0.25
#: Most streams in the live table; the table at the end has all of them.
ROWS = 20
#: Most readings that are run together.
BATCH = 1024


def forecast(
    file: Annotated[
        str,
        typer.Argument(
            help="CSV with a header, JSON, or lines of numbers; may be gzipped; - is standard input.", metavar="FILE"
        ),
    ],
    model: Annotated[
        str, typer.Option(help="A shipped name (streamer models lists them) or a path.", autocompletion=model_names)
    ] = "forecast-universal",
    time_column: Annotated[
        list[str] | None,
        typer.Option("--time", help="Column of the time; twice: of date and time. Default: ts, time, date and others."),
    ] = None,
    id_column: Annotated[
        list[str] | None,
        typer.Option("--id", help="Column that says the stream, repeatable. Default: id, sensor, name and others."),
    ] = None,
    values: Annotated[
        list[str] | None, typer.Option("--value", help="Column of a value, repeatable. Default: all with numbers.")
    ] = None,
    names: Annotated[
        str | None, typer.Option("--columns", help="Names of the columns, where no header has them: time,value.")
    ] = None,
    missing: Annotated[
        list[str] | None, typer.Option(help="What stands for no value, such as -999; repeatable.")
    ] = None,
    decimal: Annotated[
        str | None, typer.Option(help="What 1,234 is: '.' (1234) or ',' (1.234). Default: as the column shows.")
    ] = None,
    time_format: Annotated[
        str | None,
        typer.Option(help="day-first, month-first, s, ms, us, ns, excel, or a pattern such as '%d.%m.%Y %H:%M'."),
    ] = None,
    zone: Annotated[
        str | None, typer.Option(help="Of times that name none, such as Europe/Berlin. Default: UTC.")
    ] = None,
    step: Annotated[
        float | None, typer.Option(help="Seconds between readings. Default: inferred for each stream.")
    ] = None,
    max_gap: Annotated[int, typer.Option(help="Missing steps that are filled for one gap, at most.", min=0)] = 1000,
    capacity: Annotated[int, typer.Option(help="Streams at most.", min=1)] = 1000,
    json: Annotated[bool, typer.Option("--json", help="One line for each reading, with its forecast.")] = False,
    csv: Annotated[
        bool, typer.Option("--csv", help="The last forecast of each stream, one line for each step ahead.")
    ] = False,
    parquet: Annotated[
        Path | None, typer.Option(help="Write the last forecast of each stream here, one row for each step ahead.")
    ] = None,
    last: Annotated[
        int | None,
        typer.Option(help="With --json, --csv or --parquet: the last so many readings of each stream.", min=1),
    ] = None,
    scores: Annotated[Path | None, typer.Option(help="Write counts and scores of every stream here, as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw history and last forecast of up to 6 streams here.")] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Read on as the file grows, until Ctrl-C, as tail -F does.")
    ] = False,
    lenient: Annotated[bool, typer.Option("--lenient", help="Exit code 0 in spite of what can't be read.")] = False,
) -> None:
    """Forecast sensors, reading by reading: every stream is learnt while it runs, and its forecasts score themselves.

    MASE is the error relative to the better of "it stays as it is" and "as a day ago": below 1 is better.
    """
    if json and csv:
        raise CommandError("--json and --csv exclude each other: leave one out", 2)
    if last and not (json or csv or parquet):
        raise CommandError("--last is for --json, --csv and --parquet: add one of them", 2)
    if decimal not in (None, ".", ","):
        raise CommandError(f"--decimal {decimal!r}: give '.' or ','", 2)
    if step is not None and not 0 < step < 1e9:
        raise CommandError(f"--step {step:g}: give the seconds between two readings, more than 0", 2)
    if plot is not None:
        from streamer.commands.plot import need_matplotlib

        need_matplotlib(plot)
    if parquet is not None:
        from streamer.commands.forecasts import need_pyarrow

        need_pyarrow(parquet)

    from prometheus_client import CollectorRegistry

    from streamer.commands.forecasts import (
        CsvOutput,
        ForecastOutput,
        JsonForecasts,
        ParquetOutput,
        TableOutput,
        left_out,
        write_scores,
    )
    from streamer.engine.catalogue import resolve
    from streamer.metrics import Metrics
    from streamer.sensors.look import by_label
    from streamer.sensors.open import load_forecaster, make_fleet
    from streamer.sources.readings import Columns, Readings

    loaded = load_forecaster(resolve(model))
    columns = Columns(
        tuple(id_column or ()),
        tuple(time_column or ()),
        tuple(values or ()),
        names=tuple(name.strip() for name in names.split(",")) if names else (),
        missing=tuple(missing or ()),
        decimal=decimal or "",
        time_format=time_format or "",
        zone=zone or "",
    )
    if variables := loaded.layout.variables:
        if values:
            raise CommandError(f"--value is not for {model}: it takes {', '.join(variables)}; leave --value out", 2)
        columns = replace(columns, values=variables, wide=True)
        capacity = capacity if id_column else 1
    source = Readings(file, columns, complain, plain=True, follow=follow)
    try:
        table = Metrics(CollectorRegistry())
        fleet = make_fleet(loaded, table, capacity=capacity, step=step, gap=max_gap)
    except BaseException:
        source.close()
        raise
    fleet.start()
    shown = JsonForecasts(fleet, last) if json else CsvOutput(fleet, last or 1) if csv else TableOutput(fleet)
    outs: list[ForecastOutput] = [shown] if parquet is None else [shown, ParquetOutput(fleet, last or 1, parquet)]
    history = ReadingHistory(6 if plot is not None else 0)
    interrupted = False
    try:
        with _screen(table=not (json or csv)) as screen:
            run = Run(source, fleet, screen, step or 1.0, file if follow else "")
            try:
                for row in run.results():
                    for out in outs:
                        out.add(row, source.timed)
                    history(row)
            except KeyboardInterrupt:  # Ctrl-C ends an endless input: the results so far are shown
                interrupted = True
    finally:
        fleet.close()
        source.close()
    for out in outs:
        out.finished(source.timed)
    if plot is not None and fleet.slots:
        from streamer.commands.plot import draw

        draw(plot, fleet.layout, by_label(fleet), history.kept, source.timed)
    if scores is not None:
        sys.stdout.flush()  # the scores may go to the same place, after the readings
        write_scores(scores, fleet)
    if interrupted:
        raise typer.Exit(130)
    if not source.timed and step is None:
        complain(f"{file}: has no times: readings were counted, one second apart (--step SECONDS)")
    from streamer.commands.forecast_words import could_not, mostly_late, nothing, other_step

    for sentence in source.left_out():
        complain(f"{file}: {sentence}")
    if fleet.slots and (json or csv) and (left := left_out(fleet)):  # the table says it itself
        complain(f"{file}: {left}")
    if late := mostly_late(fleet):
        complain(f"{file}: {late}")
    if other := other_step(fleet):
        complain(f"{file}: {other}")
    if lost := could_not(source):
        complain(f"{file}: {lost}")
    if not fleet.slots:
        raise CommandError(f"{file}: no reading was found: {nothing(source)}", 2)
    if (lost or late) and not lenient:
        raise typer.Exit(1)


class Run:
    """One thread reads the input; the caller's thread runs the available readings in batches and shows the results.
    ``followed``: the name of a file that grows; empty: it ends."""

    def __init__(self, source: Readings, fleet: Fleet, screen: Any, step: float, followed: str = "") -> None:
        self._source, self._fleet, self._screen, self._step = source, fleet, screen, step
        self._followed = followed
        self._since = time.monotonic()
        self._drawn = 0.0
        self._gaps: set[str] = set()
        self._read: queue.Queue[Reading | Row | Exception | None] = queue.Queue(2 * BATCH)
        self._counts: dict[str, int] = {}

    def results(self) -> Iterator[ForecastRow]:
        from streamer.commands.forecasts import ForecastRow

        # a daemon thread: one that waits for standard input must not keep an interrupted process alive
        threading.Thread(target=self._read_all, name="lines", daemon=True).start()
        count = 0
        for readings in self._batches():
            if not readings:  # none for a moment
                self._draw(count)
                continue
            writing = self._fleet.write(self._batch(readings), answer=True, wait=True)
            receipt = writing.safe.result()
            assert writing.forecasts is not None
            forecasts = writing.forecasts.result()
            self._look_for_breaks(forecasts)
            yield from ForecastRow.each(forecasts)
            count += len(forecasts) * self._fleet.layout.width
            self._draw(count)
            for refusal in receipt.refusals:
                if refusal.reason == "capacity":
                    most, example = self._fleet.capacity, refusal.example
                    raise CommandError(f"more than {most} streams, the next is {example!r}: --capacity allows more")

    def _batch(self, readings: list[Any]) -> ReadingBatch:
        from streamer.sensors.columns import ReadingBatch
        from streamer.sensors.look import ALONE

        timed: list[Any] = [self._timed(reading) for reading in readings]
        variables = self._fleet.layout.variables
        return ReadingBatch.of_rows(timed, variables, ALONE) if variables else ReadingBatch.of(timed)

    def _items(self) -> Iterable[Reading | Row]:
        from streamer.sources.rows import rows
        from streamer.sources.tables.order import in_order

        source = self._source
        if not (variables := self._fleet.layout.variables):
            return in_order(source, source.report.note) if source.whole else source
        # without a column of streams, lines of one time are one row, as in training
        found = source.rows() if source.columns.id else rows(source, len(variables))
        return in_order(found, source.report.note) if source.whole else found

    def _read_all(self) -> None:
        try:
            for reading in self._items():
                self._read.put(reading)
            self._read.put(None)
        except Exception as error:  # raised where the readings are awaited
            self._read.put(error)

    def _batches(self) -> Iterator[list[Reading]]:
        """The available readings, at most ``BATCH``; none where none came for ``REDRAW_SECONDS``."""
        ended = False
        while not ended:
            readings = list[Any]()
            try:
                item = self._read.get(timeout=REDRAW_SECONDS)
            except queue.Empty:
                yield readings
                continue
            while True:
                if item is None:
                    ended = True
                    break
                if isinstance(item, Exception):
                    if readings:
                        yield readings
                    raise item
                readings.append(item)
                if len(readings) == BATCH:
                    break
                try:
                    item = self._read.get_nowait()
                except queue.Empty:
                    break
            if readings:
                yield readings

    def _timed(self, reading: Reading | Row) -> Reading | Row:
        """The reading with a time: one without gets its number in the stream, times the step."""
        from streamer.sensors.columns import Reading

        if reading.time is not None:
            return reading
        stream = reading.stream or ""
        count = self._counts[stream] = self._counts.get(stream, -1) + 1
        at = count * self._step
        return replace(reading, time=at) if isinstance(reading, Reading) else reading._replace(time=at)

    def _look_for_breaks(self, forecasts: Forecasts) -> None:
        """Report a stream's first break; the table counts the others."""
        from streamer.sensors.look import ALONE

        for at in forecasts.breaks.nonzero()[0].tolist():
            if (name := forecasts.names[at]) not in self._gaps:
                self._gaps.add(name)
                shown = self._source.name if name == ALONE else name
                _complain_of_break(shown, float(forecasts.times[at]), int(forecasts.breaks[at]))

    def _draw(self, count: int) -> None:
        now = time.monotonic()
        if self._screen is None or now - self._drawn < REDRAW_SECONDS:
            return
        self._drawn = now
        self._screen.status(self._screen_content(count, now))

    def _screen_content(self, count: int, now: float) -> Any:
        from rich.console import Group

        from streamer.commands.forecasts import table

        source, (width, height) = self._source, self._screen.size
        line = f"{count} readings, {count / max(now - self._since, 1e-3):.0f} a second"
        if self._followed:
            line = f"{count} readings; following {self._followed}, Ctrl-C ends"
        elif source.total:
            bar = min(30, max(0, width - len(line) - 1))
            filled = round(bar * min(1.0, source.done / source.total))
            line = f"{'━' * filled}{'─' * (bar - filled)} {line}"
        if not self._screen.text:
            return line
        most = max(1, min(ROWS, height - 6))
        return Group(table(self._fleet, most, width), self._screen.one_line(line))


def _complain_of_break(stream: str, at: float, why: int) -> None:
    from streamer.sensors.timeline import CHANGED, GAP, GLITCH, RESTARTED
    from streamer.sources.times import show_time

    what = {
        GAP: "a gap longer than is filled (--max-gap) ends",
        RESTARTED: "the clock was set back",
        CHANGED: "readings come at another step",
        GLITCH: "an earlier reading had a time far ahead; the others go on",
    }[why]
    complain(f"{stream}: {what} at {show_time(at)}")


@dataclass
class ReadingHistory:
    """Keeps the last readings of the first streams, for the plot."""

    most: int = 0
    kept: dict[str, Any] = field(default_factory=dict)

    def __call__(self, row: ForecastRow) -> None:
        from collections import deque

        from streamer.commands.plot import Past

        name = row.stream
        if name not in self.kept:
            if len(self.kept) >= self.most:
                return
            self.kept[name] = deque(maxlen=240)
        self.kept[name].append(Past(row.time, row.value, float(row.anomaly)))


def _screen(table: bool) -> Any:
    """Live lines on a terminal: the table on standard output, or progress on standard error if the output is a file."""
    from streamer.commands.screen import Screen

    if table and sys.stdout.isatty():
        return Screen(text=True)
    return Screen(text=False) if sys.stderr.isatty() and not sys.stdout.isatty() else nullcontext()
