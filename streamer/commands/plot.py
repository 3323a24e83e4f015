"""``streamer forecast --plot``: history, the last forecast as a fan chart, and each reading's anomaly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from streamer.commands import CommandError, why
from streamer.sensors.layout import RowLayout
from streamer.sensors.look import SensorView

__all__ = ["Past", "draw", "need_matplotlib"]

#: Length of the history, in forecast horizons.
BEFORE = 5
#: Readings below this probability are marked.
RARE = 1e-3
#: Heights in inches of a stream's two plots: readings, and anomaly.
HEIGHTS = (2.9, 0.7)


class Past(NamedTuple):
    """A past reading."""

    time: float
    value: float | None
    anomaly: float  # the probability of a reading at least this far from what was expected


def need_matplotlib(path: Path) -> None:
    """Check for matplotlib before anything runs. Raises :class:`CommandError`."""
    try:
        import matplotlib
    except ImportError as error:
        raise CommandError("--plot needs matplotlib: pip install 'streamer[plot]'", 2) from error
    matplotlib.use("agg")
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise CommandError(f"--plot {path}: name a file that ends in .png, .svg or .pdf", 2)
    if not path.absolute().parent.is_dir():
        raise CommandError(f"--plot {path}: there is no folder {path.parent}: make it first", 2)


def draw(
    path: Path, layout: RowLayout, sensors: Mapping[str, SensorView], history: Mapping[str, Sequence[Past]], timed: bool
) -> None:
    """Draw the plots. ``sensors`` and ``history`` by label; a history ends with the newest reading."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, sum(HEIGHTS) * len(history)), layout="constrained")
    panels = figure.subplots(2 * len(history), squeeze=False, height_ratios=HEIGHTS * len(history))[:, 0]
    for number, (name, readings) in enumerate(history.items()):
        if (sensor := sensors.get(name)) is not None:
            shown = list(readings)[-BEFORE * layout.horizon :]
            upper, lower = panels[2 * number : 2 * number + 2]
            _draw_readings(upper, layout, sensor, shown, timed)
            lower.sharex(upper)
            _draw_surprise(lower, shown, timed)
            upper.tick_params(labelbottom=False)
            if timed:
                _date(lower)
    try:
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise CommandError(f"can't write {path}: {why(error)}") from error


def _clock(time: float, timed: bool) -> Any:
    return datetime.fromtimestamp(time, UTC) if timed else time


def _draw_readings(axes: Any, layout: RowLayout, sensor: SensorView, shown: Sequence[Past], timed: bool) -> None:
    pace = sensor.step
    times: list[float] = []
    values: list[float] = []
    for time, value, _ in shown:
        if times and pace and time - times[-1] > 1.5 * pace:  # no line across a gap
            times.append(times[-1] + pace)
            values.append(float("nan"))
        times.append(time)
        values.append(float("nan") if value is None else value)
    axes.plot([_clock(time, timed) for time in times], values, color="0.2", linewidth=1.1, label="readings")
    if rare := [(_clock(one.time, timed), one.value) for one in shown if one.value is not None and one.anomaly < RARE]:
        label = f"rarer than 1 in {1 / RARE:.0f}"
        axes.plot(*zip(*rare, strict=True), "o", color="C3", markersize=4, label=label)
    if sensor.quantiles is not None:
        step = sensor.step or 1.0
        ahead = [_clock(sensor.time + n * step, timed) for n in range(1, layout.horizon + 1)]
        levels = layout.levels
        quantiles = dict(zip(levels, sensor.quantiles.T, strict=True))
        for number in range(len(levels) // 2):  # pairs of levels, the widest first
            low, high = levels[number], levels[-1 - number]
            if (low, high) in (("0.1", "0.9"),):  # too close to its neighbours to be distinguished
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
        axes.plot(ahead, quantiles[layout.outer[1]], color="C0", linewidth=1.4, label="median")
        axes.axvline(_clock(sensor.time, timed), color="0.6", linewidth=0.8, linestyle=":")
    axes.set_title(_title(sensor, layout), fontsize=10, loc="left")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)  # beside: it hides no reading
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.01)


def _draw_surprise(axes: Any, shown: Sequence[Past], timed: bool) -> None:
    """Plot the inverse probability of each reading that has one."""
    there = [one for one in shown if one.value is not None]
    times = [_clock(one.time, timed) for one in there]
    axes.vlines(times, 1, [1 / max(one.anomaly, 1e-9) for one in there], color="C3", linewidth=1)
    axes.set_yscale("log")
    axes.set_ylim(1, max([10 / RARE, *(2 / max(one.anomaly, 1e-9) for one in there)]))
    axes.axhline(1 / RARE, color="0.6", linewidth=0.8, linestyle=":")
    axes.set_ylabel("one in", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.01)


def _date(axes: Any) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(maxticks=10)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def _title(sensor: SensorView, layout: RowLayout) -> str:
    found, parts = sensor.life["all"], [sensor.label.replace("$", r"\$")]
    low, _, high = (float(level) for level in layout.outer)
    if found.mase is not None:
        parts.append(f"error over {layout.horizon} steps {found.mase:.2f} of naive ones'")
    if found.coverage is not None:
        parts.append(f"{found.coverage:.1%} inside the {high - low:.0%} interval")
    return ", ".join(parts)
