"""The shipped forecasters and readings that are none: reported, and neither learnt nor forecast again."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.engine.catalogue import resolve
from streamer.engine.model import Model
from streamer.engine.stepper import Stepper

Values = NDArray[np.float64]
DAY = 24
SEEDS = 6
#: The last one is no farther out than twice the range that the sensor shows.
ERRORS = (85.0, -127.0, -999.0, 1e6, 0.0)


class Said(NamedTuple):
    """``mean`` and ``width`` [T, B, H]: of 90 %; ``anomaly`` [T, B]."""

    mean: Values
    width: Values
    anomaly: Values


@pytest.fixture(scope="module", params=["forecast-online", "forecast-universal"])
def model(request: pytest.FixtureRequest) -> Model:
    return Model.load(resolve(request.param))


def run(model: Model, values: Values, day: int = DAY, sleep: int | None = None) -> Said:
    """``values`` [T, B]. ``sleep``: after so many readings states are saved, and another process goes on."""
    time = np.arange(len(values))
    rows = np.ones((*values.shape, 1, 4), model.manifest.input.dtype)
    rows[:, :, 0, 0] = values
    rows[:, :, 0, 2], rows[:, :, 0, 3] = (time / day % 1)[:, None], (time / day / 7 % 1)[:, None]
    stepper, found = Stepper(model, values.shape[1]), []
    for number, row in enumerate(rows):
        if number == sleep:
            saved = {name: array.tobytes() for name, array in stepper.states.items()}
            fresh = Stepper(model, values.shape[1])
            fresh.states = {
                name: np.frombuffer(saved[name], array.dtype).reshape(array.shape).copy()
                for name, array in fresh.states.items()
            }
            stepper = fresh
        out = stepper.step(row)
        width = out["quantiles"][:, 0, :, -1] - out["quantiles"][:, 0, :, 0]
        found.append((out["mean"][:, 0], width, out["anomaly"][:, 0]))
    return Said(*(np.array(part, np.float64) for part in zip(*found, strict=True)))


def waves(length: int, streams: int = SEEDS) -> Values:
    """[T, B]: a clean daily wave of noise .2."""
    noise = np.random.default_rng(0).standard_normal((length, streams))
    phase = np.arange(streams)
    return 20 + 3 * np.sin(2 * np.pi * np.arange(length)[:, None] / DAY + phase) + 0.2 * noise


def rms(said: Said, truth: Values, first: int, behind: int, step: int) -> Values:
    """[B] of the forecasts of one step that are made at these readings."""
    made = said.mean[first:behind, :, step - 1]
    return np.sqrt(((made - truth[first + step : behind + step]) ** 2).mean(0))


@pytest.mark.long
@pytest.mark.parametrize("sleep", [None, 301])
@pytest.mark.parametrize("at", [0, 30, *(pytest.param(at, marks=pytest.mark.long) for at in (3, 12, 300))])
def test_an_error_value_is_reported_and_forgotten(model: Model, at: int, sleep: int | None) -> None:
    if sleep and at != 300:
        pytest.skip("one restart is enough")
    cases = [(error, count) for error in ERRORS[: 5 if at > 24 else 4] for count in (1, 2, 3)]
    length = at + 3 + DAY + 90
    truth = np.tile(waves(length), (1, 1 + len(cases)))
    given = truth.copy()
    for number, (error, count) in enumerate(cases, 1):
        given[at : at + count, number * SEEDS : (number + 1) * SEEDS] = error
    said = run(model, given, sleep=sleep)
    if at >= 300:
        assert (said.anomaly[at, SEEDS:] < 0.001).all()
    back = at + 3 + (10 if at > 24 else 24)  # nothing is fitted before, and the first fits are a matter of luck
    most = 1.25 if at > 24 else 2.0
    for first, behind in (
        (back, back + 12),
        (max(back, at + DAY - 6), max(back, at + DAY - 6) + 16),
        (back + 12, back + 40),
    ):
        for step in (1, 6, 24):
            errors = rms(said, truth, first, behind, step).reshape(-1, SEEDS).mean(1)
            widths = said.width[first:behind, :, step - 1].mean(0).reshape(-1, SEEDS).mean(1)
            assert errors[1:].max() < most * errors[0] + 0.02, (first - at, step, (errors / errors[0]).round(2))
            assert widths[1:].max() < most * widths[0], (first - at, step, (widths / widths[0]).round(2))
            assert widths[1:].min() > widths[0] / most


@pytest.mark.parametrize("jump", [60.0, pytest.param(-1e6, marks=pytest.mark.long)])
def test_a_sensor_that_stays_elsewhere_is_followed(model: Model, jump: float) -> None:
    truth = waves(520)
    truth[400:] += jump
    said = run(model, truth)
    assert (said.anomaly[400] < 0.001).all()
    before, after = rms(said, truth, 300, 390, 1), rms(said, truth, 412, 490, 1)
    assert (after < 1.5 * before).all()
    assert (said.width[412:, :, 0].mean(0) < 1.5 * said.width[300:390, :, 0].mean(0)).all()


def test_stuck_switched_and_climbing_sensors_are_followed(model: Model) -> None:
    time = np.arange(700)
    wave = waves(700, 1)[:, 0]
    sensors = {
        "stuck": (np.where(time < 400, wave, 20.0), 0.1),
        "climbs": (np.where(time < 400, wave, wave + 2.0 * (time - 400)), 6.0),
        "on and off": ((time // 50 % 2) * 100.0, 4.0),
        "pulses": (np.where(time % DAY < 3, 70.0, 20.0) + 0.2 * (wave - 20), 3.0),
        "often elsewhere": (np.where(np.random.default_rng(0).random(700) < 0.3, 50.0, 20.0) + 0.01 * wave, 15.0),
    }
    values = np.stack([sensor for sensor, _ in sensors.values()], 1)
    said = run(model, values)
    found = np.abs(said.mean[500:-1, :, 0] - values[501:]).mean(0)
    for (name, (_, most)), error in zip(sensors.items(), found, strict=True):
        assert error < most, (name, error)


@pytest.mark.parametrize("day", [12, pytest.param(24, marks=pytest.mark.long)])
def test_steps_before_a_whole_day_are_as_good_as_others(model: Model, day: int) -> None:
    """A whole day ahead persistence is as good as "as a day ago"; not so the steps before."""
    time = np.arange(30 * day)
    hours = np.random.default_rng(3).uniform(18, 25, (day, SEEDS))
    noise = np.random.default_rng(4).standard_normal((len(time), SEEDS))
    truth = (hours[time % day] + 0.03 * noise).round(2)
    said = run(model, truth, day=day)
    errors = np.array([rms(said, truth, 15 * day, 29 * day, step).mean() for step in range(1, day)])
    assert errors[1:].max() < 2 * np.median(errors), errors.round(2)


@pytest.mark.long
def test_an_error_that_comes_back_now_and_then_is_never_learnt(model: Model) -> None:
    clean = waves(700)
    values = np.where(np.random.default_rng(1).random(clean.shape) < 0.05, -127.0, clean)
    said, well = run(model, values), run(model, clean)
    made = (values == clean)[400:-1]  # where the last reading was one
    error = np.abs(said.mean[400:-1, :, 0] - clean[401:])[made].mean()
    assert error < 1.25 * np.abs(well.mean[400:-1, :, 0] - clean[401:])[made].mean()
    assert said.width[400:, :, 0].mean() < 1.5 * well.width[400:, :, 0].mean()


@pytest.mark.parametrize(
    ("unit", "level"),
    [
        (1e30, 0.0),
        (1e-3, 101325.0),
        *(
            pytest.param(*each, marks=pytest.mark.long)
            for each in ((1e15, 0.0), (1e-12, 0.0), (1e-30, 0.0), (1.0, 1e9), (1e17, 1.8e19), (1.0, -1e9))
        ),
    ],
)
def test_any_unit_and_any_level_are_as_good(model: Model, unit: float, level: float) -> None:
    shape = waves(200) - 20
    plain, other = run(model, shape), run(model, shape * unit + level)
    assert np.abs((other.mean[30:] - level) / unit - plain.mean[30:]).max() < 0.01
    assert np.abs(other.width[30:] / unit / plain.width[30:] - 1).max() < 0.01


@pytest.mark.long
def test_a_counter_keeps_its_last_digits(model: Model) -> None:
    """Of the size of uint64, and for longer than a float32 counts."""
    ticks: Any = np.arange(1500.0)[:, None] * np.array([1.0, 4096.0]) + np.array([2.0**52, 1.7e19])
    said = run(model, ticks)
    errors = said.mean[1000:-1, :, 0] - ticks[1001:]
    assert np.abs(errors / np.array([1.0, 4096.0])).max() < 1.5
