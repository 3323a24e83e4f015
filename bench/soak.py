"""Endurance test of a forecaster: years of faulty readings must not increase its error.

In each round a sensor is well (a daily wave with noise), then stuck, then sends spikes of up to 1e12 and infinities,
then is silent, and then well again, at another level in each round. All rounds run in the same streams, directly in
ONNX Runtime. The figure is the error of the median at the end of every round, over that of a stream without faults. A
number in state or output that is not finite ends the test with exit code 1. ``--steps 10000000`` takes hours; the
default is a few minutes.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from bench.report import finish
from streamer.engine.catalogue import resolve
from streamer.engine.model import Model
from streamer.engine.stepper import Stepper

Floats = NDArray[np.float32]
#: Readings of each kind in a round, in order.
PHASES = {"well": 3000, "stuck": 20000, "spikes": 1000, "silent": 3000, "well again": 3000}
SCORED = 1000  # last readings of a phase, which are scored


def readings(kind: str, time: NDArray[np.int64], streams: int, level: float, rng: np.random.Generator) -> Floats:
    """The input rows [T, B, 4] of one phase, hourly."""
    noise = rng.standard_normal((len(time), streams))
    values = level + 3 * np.sin(2 * np.pi * time[:, None] / 24) + 0.3 * noise
    there = np.ones_like(values)
    if kind == "stuck":
        values[:] = level
    elif kind == "spikes":
        odd = rng.random(values.shape) < 0.05
        values[odd] = rng.choice([1e12, -1e12, np.inf, -np.inf, np.nan, 3e38], int(odd.sum()))
    elif kind == "silent":
        there[:] = 0
        values[:] = np.nan
    phases = np.broadcast_to(np.stack([time / 24 % 1, time / 168 % 1], 1)[:, None], (*values.shape, 2))
    return np.concatenate([values[..., None], there[..., None], phases], 2).astype(np.float32)


class Streams:
    """``count`` streams of one model, and their states."""

    def __init__(self, model: Model, count: int) -> None:
        self.time, self.stepper = 0, Stepper(model, count)
        self.middle = model.manifest.options["quantiles"].index(0.5)

    def run(self, rows: Floats) -> Floats:
        """Run ``rows`` [T, B, 4]; returns the medians for the next reading [T, B]. Raises ``FloatingPointError`` for a
        number that is not finite."""
        medians = np.zeros(rows.shape[:2], np.float32)
        for t, row in enumerate(rows):
            out = self.stepper.step(row[:, None].astype(self.stepper.manifest.input.dtype))
            medians[t] = out["quantiles"][:, 0, 0, self.middle]
        for name, array in {**self.stepper.states, "quantiles": out["quantiles"], "anomaly": out["anomaly"]}.items():
            if not np.isfinite(array).all():
                raise FloatingPointError(f"{name} is not finite after {self.time + len(rows)} readings")
        self.time += len(rows)
        return medians


def error(medians: Floats, rows: Floats) -> float:
    """Root mean square error of the last readings."""
    return float(np.sqrt(np.mean((medians[:-1] - rows[1:, :, 0])[-SCORED:] ** 2)))


def live(model: Model, steps: int, count: int) -> tuple[int, list[float]]:
    """The number of readings, and the error of each round over that of a stream without faults. Raises
    ``FloatingPointError``."""
    rng = np.random.default_rng(0)
    well = readings("well", np.arange(PHASES["well"]), count, 20.0, rng)
    usual = error(Streams(model, count).run(well), well)
    streams, rounds = Streams(model, count), []
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("readings", total=steps)
        while streams.time * count < steps:
            level = float(rng.normal() * 10.0 ** rng.integers(0, 4))
            for kind, length in PHASES.items():
                rows = readings(kind, streams.time + np.arange(length), count, level, rng)
                medians = streams.run(rows)
                progress.update(bar, completed=streams.time * count)
            rounds.append(error(medians, rows) / usual)
    return streams.time * count, rounds


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="forecast-online", help="shipped name or path")
    parser.add_argument("--steps", type=int, default=300_000, help="readings, all streams together")
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    given = parser.parse_args(argv)
    model = Model.load(resolve(given.model))
    try:
        total, rounds = live(model, given.steps, given.streams)
    except FloatingPointError as failure:
        print(failure)
        return 1
    finish(
        "soak",
        {"model": given.model, "readings": total, "rounds": len(rounds), "worst": max(rounds), "last": rounds[-1]},
        columns=("readings", "rounds", "error, over that of good days: worst", "of the last round"),
        rows=[(total, len(rounds), f"{max(rounds):.3f}", f"{rounds[-1]:.3f}")],
        as_json=given.json,
    )
    return 0
