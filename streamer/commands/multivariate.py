"""``streamer forecast`` with a model of several variables: one stream of rows, and what is said of each target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from streamer.commands.forecast import Running
from streamer.engine.denormals import flush_denormals
from streamer.engine.model import Model, ModelError
from streamer.engine.stepper import Stepper
from streamer.sensors.columns import Told
from streamer.sensors.latest import Latest
from streamer.sensors.scores import Track
from streamer.sensors.timeline import WHOLE, Clocks, phases
from streamer.sources.rows import rows
from streamer.tasks import TaskError, create
from streamer.tasks.forecast import Forecaster

if TYPE_CHECKING:
    from streamer.commands.forecasts import Row
    from streamer.sources.readings import Readings

__all__ = ["RowRun", "Targets", "open_targets"]


@dataclass(frozen=True)
class Room:
    """What is kept of each target, by number."""

    clocks: Clocks
    track: Track
    latest: Latest


class Targets:
    """One stream of rows, looked at as a :class:`streamer.sensors.look.Sensors`: each target of the model is a sensor
    there. ``step`` and ``gap`` as in the fleet."""

    def __init__(self, model: Model, *, step: float | None, gap: int) -> None:
        self.model, task = model, cast(Forecaster, create(model.manifest))
        self.variables, self.targets = task.options.variables, task.options.targets
        self.horizon, self.levels = task.options.horizon, task.levels
        self.outer = self.levels[0], self.levels[len(self.levels) // 2], self.levels[-1]
        count = len(self.targets)
        track = Track(count, self.horizon, task.options.quantiles)
        self.room = Room(Clocks(count, step, gap), track, Latest(count, self.horizon, len(self.levels)))
        #: Empty until there is a row.
        self.slots: dict[str, int] = {}
        self.names, self.capacity = self.targets, count
        self.rows = nullcontext()  # rows are written and looked at by one thread
        self._all = np.arange(count)
        self._chosen = [self.variables.index(name) for name in self.targets]
        self._stepper = Stepper(model)
        self._chunk = np.zeros((1, *model.manifest.input.chunk_shape), np.float32)

    def start(self) -> None:
        flush_denormals()

    def close(self) -> None:
        """There is nothing to end."""

    def lane_of(self, slot: int) -> Targets:
        return self

    def write(self, time: float, values: Mapping[str, float | None]) -> Told:
        """One row, and what is said of each target after it; nothing where it was late or a duplicate."""
        clocks, latest = self.room.clocks, self.room.latest
        self.slots = self.slots or {name: number for number, name in enumerate(self.targets)}
        placed = clocks.place(self._all, np.full(len(self._all), time))
        kept = self._all if placed.taken[0] else self._all[:0]
        masked, step = int(placed.masked[0]), float(clocks.step[0])
        for missing in range(masked, 0, -1):
            self._run(time - missing * step, np.full(len(self.variables), np.nan))
        outputs: dict[str, NDArray[Any]] = {}
        if len(kept):
            if placed.breaks[0] != WHOLE:
                self.room.track.forget(self._all)
            said = (values.get(name) for name in self.variables)
            row = np.array([np.nan if value is None else value for value in said])
            outputs = self._run(time, row)
            self._keep(time, row[self._chosen], outputs)
        nothing = np.ones((len(kept),), np.float32)
        shape = (len(kept), self.horizon, len(self.levels))
        return Told(
            self.targets[: len(kept)],
            np.full(len(kept), time),
            latest.value[kept],
            clocks.pace(kept),
            placed.breaks[kept],
            self.levels,
            outputs["quantiles"][0, 0] if len(kept) else np.zeros(shape, np.float32),
            latest.anomaly[kept] if len(kept) else nothing,
            latest.drift[kept] if len(kept) else nothing,
            latest.begun[kept],
        )

    def other_step(self) -> str:
        """What is to be told where rows come at another step than in training; empty: they don't."""
        trained, found = self.model.manifest.input.step_seconds, float(self.room.clocks.pace(self._all)[0])
        if not trained or not found > 0 or abs(found - trained) <= 0.01 * trained:
            return ""
        name = self.model.manifest.name
        return f"a row comes every {found:g} s, and {name} has learnt rows that come every {trained:g} s"

    def _run(self, time: float, row: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
        """One step; ``row`` [C], NaN where missing."""
        there, count, clocks = ~np.isnan(row), len(row), self.room.clocks
        self._chunk[0, 0, :count] = np.where(there, row, 0.0)
        self._chunk[0, 0, count : 2 * count] = there
        self._chunk[0, 0, 2 * count :] = phases(time)
        outputs = self._stepper.step(self._chunk)
        truth, step = row[self._chosen], float(clocks.step[0])
        day = round(86400 / step) if step > 0 else 0
        self.room.track.truth(self._all, truth, np.full(len(truth), min(day, 2**31)))
        known = np.flatnonzero(~np.isnan(truth))
        if len(known):
            self.room.track.said(known, outputs["quantiles"][0, 0, known], truth[known])
        return outputs

    def _keep(self, time: float, truth: NDArray[np.float64], outputs: Mapping[str, NDArray[Any]]) -> None:
        latest = self.room.latest
        latest.time[:], latest.value[:], latest.quantiles[:] = time, truth, outputs["quantiles"][0, 0]
        latest.step[:] = self.room.clocks.pace(self._all)
        for name, kept in (("anomaly", latest.anomaly), ("drift", latest.drift)):
            kept[:] = outputs[name][0, 0] if name in outputs else 1.0
        latest.readings += 1
        latest.missing += np.isnan(truth)
        latest.begun |= ~np.isnan(truth)


def open_targets(path: Path, *, step: float | None, gap: int) -> Targets | None:
    """``None``: the model is not one of several variables. Raises :class:`ModelError`."""
    model = Model.load(path)
    if model.manifest.task != "forecast" or not model.manifest.options.get("variables"):
        return None
    try:
        return Targets(model, step=step, gap=gap)
    except TaskError as error:
        raise ModelError(f"{path}: {error}") from error


class RowRun(Running):
    """Row by row, each shown before the next is read."""

    def __init__(self, source: Readings, targets: Targets, screen: Any, step: float) -> None:
        super().__init__(source, targets, screen, step)
        self._targets = targets

    def results(self) -> Iterator[Row]:
        from streamer.commands.forecasts import Row

        for count, (time, values) in enumerate(rows(self._source, len(self._targets.variables))):
            told = self._targets.write(count * self._step if time is None else time, values)
            if len(told) and told.breaks[0] and self._source.name not in self._gaps:  # once, and not for each target
                self._tell(self._source.name, float(told.times[0]), int(told.breaks[0]))
            yield from Row.each(told)
            self._draw((count + 1) * len(self._targets.variables))
