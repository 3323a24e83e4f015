"""``streamer forecast --plot``: history, and the last forecast as a fan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from streamer.commands import CommandError
from streamer.sensors import Sensor, Sensors

__all__ = ["draw", "need_matplotlib"]

#: Readings before the fan, in lengths of it.
BEFORE = 5


def need_matplotlib(path: Path) -> None:
    """Before anything runs: a picture that can't be made is told at once. Raises :class:`CommandError`."""
    try:
        import matplotlib
    except ImportError as error:
        raise CommandError("--plot needs matplotlib: pip install 'streamer[plot]'", 2) from error
    matplotlib.use("agg")
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise CommandError(f"--plot {path}: .png, .svg or .pdf", 2)
    if not path.absolute().parent.is_dir():
        raise CommandError(f"--plot {path}: there is no folder {path.parent}", 2)


def draw(
    path: Path, sensors: Sensors, history: Mapping[str, Sequence[tuple[float, float | None]]], timed: bool
) -> None:
    """``history``: (time, value) by stream, the newest last."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2.9 * len(history)), layout="constrained")
    for axes, (name, readings) in zip(figure.subplots(len(history), squeeze=False)[:, 0], history.items(), strict=True):
        _draw_one(axes, sensors, sensors.streams[name], readings, timed)
    try:
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise CommandError(f"can't write {path}: {error.strerror}") from error


def _draw_one(
    axes: Any, sensors: Sensors, sensor: Sensor, readings: Sequence[tuple[float, float | None]], timed: bool
) -> None:
    def clock(time: float) -> Any:
        return datetime.fromtimestamp(time, UTC) if timed else time

    shown = list(readings)[-BEFORE * sensors.horizon :]
    pace = sensor.cadence.pace
    times: list[float] = []
    values: list[float] = []
    for time, value in shown:
        if times and pace and time - times[-1] > 1.5 * pace:  # no line across a gap
            times.append(times[-1] + pace)
            values.append(float("nan"))
        times.append(time)
        values.append(float("nan") if value is None else value)
    axes.plot([clock(time) for time in times], values, color="0.2", linewidth=1.1, label="readings")
    told = sensor.last
    if told is not None and told.forecast is not None:
        step = sensor.cadence.pace or 1.0
        ahead = [clock(told.time + n * step) for n in range(1, sensors.horizon + 1)]
        quantiles, levels = told.forecast.quantiles, sensors.levels
        for number in range(len(levels) // 2):  # pairs of levels, the widest first
            low, high = levels[number], levels[-1 - number]
            if (low, high) in (("0.1", "0.9"),):  # too close to its neighbours to be told apart
                continue
            label = f"{float(low):.0%} to {float(high):.0%}"
            axes.fill_between(
                ahead,
                quantiles[low],
                quantiles[high],
                color="C0",
                alpha=0.2 + 0.15 * (number > 0),
                linewidth=0,
                label=label,
            )
        axes.plot(ahead, quantiles[sensors.outer[1]], color="C0", linewidth=1.4, label="median")
        axes.axvline(clock(told.time), color="0.6", linewidth=0.8, linestyle=":")
    axes.set_title(_title(sensor, sensors), fontsize=10, loc="left")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)  # beside: it hides no reading
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.01)
    if timed:
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        locator = AutoDateLocator()  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def _title(sensor: Sensor, sensors: Sensors) -> str:
    found, parts = sensor.score.summary()["all"], [sensor.name.replace("$", r"\$")]
    low, _, high = (float(level) for level in sensors.outer)
    if found.mase is not None:
        parts.append(f"error over {sensors.horizon} steps {found.mase:.2f} of naive ones'")
    if found.coverage is not None:
        parts.append(f"{found.coverage:.1%} inside the {high - low:.0%} interval")
    return ", ".join(parts)
