"""``streamer forecast``: sensors from files and standard input."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamer.commands import CommandError, complain

if TYPE_CHECKING:
    from streamer.sensors import Sensors, Told
    from streamer.sources.readings import Readings

__all__ = ["forecast"]

REDRAW_SECONDS = 0.25
#: Streams in the table that is redrawn; the last one holds all.
ROWS = 20


def forecast(
    file: Annotated[
        str, typer.Argument(help="CSV with a header, or NDJSON; may be gzipped; - is standard input.", metavar="FILE")
    ],
    model: Annotated[
        str, typer.Option(help="A shipped name (streamer models lists them) or a path.")
    ] = "forecast-universal",
    time_column: Annotated[
        str | None, typer.Option("--time", help="Column of the time. Default: ts, time, timestamp, date or datetime.")
    ] = None,
    id_column: Annotated[
        str | None,
        typer.Option("--id", help="Column that says the stream. Default: id, sensor, stream, name or series."),
    ] = None,
    values: Annotated[
        list[str] | None, typer.Option("--value", help="Column of a value, repeatable. Default: all with numbers.")
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
    last: Annotated[
        int | None, typer.Option(help="With --json or --csv: only the last so many readings of each stream.", min=1)
    ] = None,
    scores: Annotated[Path | None, typer.Option(help="Write counts and scores of every stream here, as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw history and last forecast of up to 6 streams here.")] = None,
    lenient: Annotated[
        bool, typer.Option("--lenient", help="Exit code 0 in spite of lines that can't be read.")
    ] = False,
) -> None:
    """Forecast sensors, reading by reading: every stream is learnt while it runs, and its forecasts score themselves.

    MASE is the error relative to the better of "it stays as it is" and "as a day ago": below 1 is better.
    """
    if json and csv:
        raise CommandError("--json and --csv exclude each other", 2)
    if last and not (json or csv):
        raise CommandError("--last is for --json and --csv", 2)
    if step is not None and not 0 < step < 1e9:
        raise CommandError(f"--step {step:g}: seconds between two readings, more than 0", 2)
    if plot is not None:
        from streamer.commands.plot import need_matplotlib

        need_matplotlib(plot)

    from streamer.commands.forecasts import CsvOutput, JsonOutput, TableOutput, write_scores
    from streamer.engine.model import resolve
    from streamer.sensors import Sensors
    from streamer.sources.readings import Columns, Readings

    source = Readings(file, Columns(id_column, time_column, tuple(values or ())), complain)
    try:
        sensors = Sensors(resolve(model), capacity=capacity, step=step, gap=max_gap)
    except BaseException:
        source.close()
        raise
    out = JsonOutput(sensors, last) if json else CsvOutput(sensors, last or 1) if csv else TableOutput(sensors)
    history = History(6 if plot is not None else 0)
    interrupted = False
    try:
        with _screen(table=not (json or csv)) as screen:
            run = Run(source, sensors, screen)
            try:
                for told in run.results():
                    out.told(told, source.timed)
                    history(told)
            except KeyboardInterrupt:  # the way to end what never ends: what is known by then is shown
                interrupted = True
    finally:
        sensors.close()
        source.close()
    out.finished(source.timed)
    if plot is not None and sensors.streams:
        from streamer.commands.plot import draw

        draw(plot, sensors, history.kept, source.timed)
    if scores is not None:
        write_scores(scores, sensors)
    if interrupted:
        raise typer.Exit(130)
    if not source.timed and step is None:
        complain(f"{file}: has no times: readings were counted, one second apart (--step SECONDS)")
    if not sensors.streams:
        raise CommandError(f"{file}: holds no reading", 2)
    if source.bad:
        complain(f"{file}: {source.bad} of {source.lines} lines could not be read and were left out")
        if not lenient:
            raise typer.Exit(1)


class Run:
    """A thread that reads and puts; the caller's takes and shows."""

    def __init__(self, source: Readings, sensors: Sensors, screen: Any) -> None:
        self._source, self._sensors, self._screen = source, sensors, screen
        self._error: Exception | None = None
        self._since = time.monotonic()
        self._drawn = 0.0
        self._gaps: set[str] = set()

    def results(self) -> Iterator[Told]:
        # a daemon thread: one that waits for standard input must not keep an interrupted process alive
        threading.Thread(target=self._read, name="readings", daemon=True).start()
        for count, told in enumerate(self._sensors.results(), 1):
            yield told
            self._draw(count)
        if self._error is not None:
            raise self._error

    def _read(self) -> None:
        try:
            for reading in self._source:
                steps = self._sensors.put(reading)
                if steps is not None and (steps.gap or steps.restarted) and reading.stream not in self._gaps:
                    self._tell(reading.stream, reading.time, steps.gap)
        except Exception as error:  # raised where the results are awaited
            self._error = error
        finally:
            self._sensors.end()

    def _tell(self, stream: str, at: float | None, gap: bool) -> None:
        """Once for each stream; the table counts the others."""
        from streamer.sources.times import show_time

        self._gaps.add(stream)
        what = "a gap longer than is filled (--max-gap) ends" if gap else "the clock was set back"
        complain(f"{stream}: {what} at {show_time(at or 0.0)}")

    def _draw(self, count: int) -> None:
        now = time.monotonic()
        if self._screen is None or now - self._drawn < REDRAW_SECONDS:
            return
        self._drawn = now
        self._screen.status(self._screen_content(count, now))

    def _screen_content(self, count: int, now: float) -> Any:
        from rich.console import Group

        from streamer.commands.forecasts import table

        source = self._source
        line = f"{count} readings, {count / max(now - self._since, 1e-3):.0f} a second"
        if source.total:
            filled = round(30 * min(1.0, source.done / source.total))
            line = f"{'━' * filled}{'─' * (30 - filled)} {line}"
        return Group(table(self._sensors, ROWS), line) if self._screen.text else line


@dataclass
class History:
    """The last readings of the first streams, for the picture."""

    most: int = 0
    kept: dict[str, Any] = field(default_factory=dict)

    def __call__(self, told: Told) -> None:
        name = told.sensor.name
        if name not in self.kept:
            if len(self.kept) >= self.most:
                return
            from collections import deque

            self.kept[name] = deque(maxlen=240)
        self.kept[name].append((told.time, told.value))


def _screen(table: bool) -> Any:
    """Live lines where somebody looks: the table on standard output, or progress beside output that goes elsewhere."""
    from streamer.commands.screen import Screen

    if table and sys.stdout.isatty():
        return Screen(text=True)
    return Screen(text=False) if sys.stderr.isatty() and not sys.stdout.isatty() else nullcontext()
