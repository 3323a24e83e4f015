"""A table: rows and steps as the daemon has them, three parts that share nothing, and what is said of its columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.forecast.columns import choose
from models.forecast.multivariate import Scaling
from models.forecast.table import MOST, ORIGINS, RawTable, arrange, needed, read, split
from streamer.sensors.timeline import GAP, Timelines
from tests.models import plant

HOUR = 3600.0


def raw(**columns: np.ndarray) -> RawTable:
    values = np.column_stack([*columns.values()]).astype(np.float64)
    return RawTable("plant.csv", tuple(columns), HOUR * np.arange(len(values)), values)


def walks(count: int, length: int = 600) -> np.ndarray:
    return np.cumsum(np.random.default_rng(0).standard_normal((length, count)), 0)


def test_a_file_is_read_as_the_command_reads_it(tmp_path: Path) -> None:
    path = plant.write(tmp_path / "plant.csv")
    told: list[str] = []
    found = read(path, None, told.append)
    lines = path.read_text().splitlines()[1:]
    assert found.columns == ("outflow", "inflow", "dead")
    assert found.strange == ("state",)
    assert (len(found.times), found.bad, told) == (len(lines), 0, [])
    assert np.isnan(found.values[:, :2]).any()
    want = [float(line.split(",")[1] or "nan") for line in lines]
    assert np.array_equal(found.values[:, 0], want, equal_nan=True)
    assert found.times[0] == plant.BEGIN.timestamp()


def test_a_column_that_begins_late_and_lines_that_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "plant.csv"
    path.write_text("ts;id;b\n0;1,5;\n3600;2,5;\nnonsense\n7200;3,5;4\n")
    told: list[str] = []
    found = read(path, None, told.append)
    assert found.columns == ("id", "b")
    assert np.array_equal(found.values, [[1.5, np.nan], [2.5, np.nan], [3.5, 4.0]], equal_nan=True)
    assert (found.bad, len(told)) == (1, 1)


def test_steps_are_those_of_the_clocks() -> None:
    rng = np.random.default_rng(2)
    ahead = HOUR * np.where(rng.random(400) < 0.1, rng.integers(1, 20, 400), 1) + np.where(
        rng.random(400) < 0.3, rng.normal(0, 60, 400), 0
    )
    ahead[:20] = HOUR
    ahead[300] = (MOST + 50) * HOUR
    times = 1e9 + np.cumsum(ahead)
    times = np.insert(times, 200, times[199])  # a duplicate
    values = rng.standard_normal((len(times), 1))
    clocks, rows = Timelines(1, None, MOST), []
    slot = np.array([0])
    for time, value in zip(times, values[:, 0], strict=True):
        placed = clocks.place(slot, np.array([time]))
        step = clocks.step[0]
        masked = int(placed.masked[0])
        rows += [(time - missing * step, np.nan) for missing in range(masked, 0, -1)]
        rows += [(time, value)] * bool(placed.taken[0])
        if placed.breaks[0] == GAP:
            broken = len(rows) - 1
    table = arrange(times, values)
    assert table.step == clocks.step[0] == HOUR
    assert np.array_equal(table.values[:, 0], [value for _, value in rows], equal_nan=True)
    assert np.allclose(table.times, [time for time, _ in rows])
    assert (table.duplicates, table.unsorted, table.masked) == (1, 0, clocks.counts["masked"][0])
    assert np.flatnonzero(np.diff(table.stretches)).tolist() == [broken - 1 - MOST]


def test_rows_that_came_late_are_sorted_in_and_counted() -> None:
    times, values = HOUR * np.arange(50), np.arange(50.0)[:, None]
    table = arrange(times[::-1], values[::-1])
    assert (table.unsorted, table.masked, table.duplicates) == (49, 0, 0)
    assert np.array_equal(table.values, values)


def test_no_step_is_told() -> None:
    with pytest.raises(ValueError, match="no constant step"):
        arrange(np.concatenate([np.arange(0, 50), np.arange(50, 5e6, 1e5)]), np.zeros((100, 1)))
    with pytest.raises(ValueError, match="two rows"):
        arrange(np.zeros(3), np.zeros((3, 1)))


@pytest.mark.parametrize("horizon", [1, 24, 100])
def test_parts_are_in_order_and_a_horizon_apart(horizon: int) -> None:
    least = needed(horizon)
    for count in (least, 10 * least + 7):
        training, validation, test = split(count, horizon).values()
        assert training.first == 0
        assert test.end == count
        assert validation.first - training.end == test.first - validation.end == horizon
        assert all(len(part.origins(horizon)) >= ORIGINS - 1 for part in (training, validation, test))
        assert training.end == pytest.approx(0.6 * count, abs=1)
    with pytest.raises(
        ValueError, match=rf"{least - 1} rows are too few: {least} are needed to forecast {horizon} steps"
    ):
        split(least - 1, horizon)


def test_columns_that_teach_nothing_are_left_out_and_said() -> None:
    a, b, c, d = walks(4).T
    d[:400] = np.nan
    table = raw(a=a, b=b, still=np.full(600, 3.25), gone=np.full(600, np.nan), d=d, c=c)
    found = choose(table, table.values, ["a"], ["c"], 6)
    assert found.variables == ("a", "b", "d")
    assert found.targets == ("a",)
    assert found.left_out["still"] == "is 3.25 in all training rows"
    assert {"gone", "c"} < set(found.left_out)
    assert found.warnings == ("`d` is missing in 67% of the training rows.",)
    assert choose(table, table.values, [], [], 6).targets == ("a", "b", "d", "c")


@pytest.mark.parametrize(
    ("targets", "without", "message"),
    [
        (["nothing"], [], "has no column 'nothing': there are a, b, still"),
        (["still"], [], "can't forecast what can't be learnt: still is 3 in all"),
        (["a"], ["a"], "a was not wanted"),
        ([], ["a"], "1 column of numbers to learn from .*forecast-universal"),
    ],
)
def test_what_can_not_be_done_is_told(targets: list[str], without: list[str], message: str) -> None:
    a, b = walks(2).T
    table = raw(a=a, b=b, still=np.full(600, 3.0))
    with pytest.raises(ValueError, match=message):
        choose(table, table.values, targets, without, 6)


def test_a_column_that_knows_the_future_is_pointed_at() -> None:
    a, b, c = walks(3).T
    table = raw(a=a[:-4], ahead=-2 * a[4:] + 7, b=b[:-4], twice=b[:-4] * 1.8 + 32, c=c[:-4])
    one, two = choose(table, table.values, [], [], 6).warnings
    assert one.startswith("`ahead` moves as `a` will 4 rows later (correlation of differences -1.000)")
    assert "--without ahead" in one
    assert two.startswith("`b` moves as `twice` does (correlation of differences 1.000)")
    assert choose(table, table.values, ["a"], ["ahead"], 6).warnings == ()


def test_a_slow_level_is_not_taken_for_its_own_future() -> None:
    """Levels of slow columns correlate with nearly everything; that is no finding."""
    slow = np.linspace(0, 300, 600)[:, None] + walks(2)
    assert np.corrcoef(slow[:-1, 0], slow[1:, 1])[0, 1] > 0.8
    table = raw(a=slow[:, 0], b=slow[:, 1])
    assert choose(table, table.values, [], [], 6).warnings == ()


def test_scaling_does_not_heed_a_spike_nor_what_is_missing() -> None:
    values = 5 + 2 * np.random.default_rng(0).standard_normal((4000, 2))
    values[100, 0], values[::3, 1] = 1e9, np.nan
    found = Scaling.of(values)
    assert np.allclose(found.centre, 5, atol=0.2)
    assert np.allclose(found.spread, 2, atol=0.2)
    assert np.allclose(found.pace, np.sqrt(2), atol=0.1)
    alarm = np.zeros((4000, 1))
    alarm[::1500] = 1.0
    assert 0.01 < Scaling.of(alarm).spread[0] < 0.1
