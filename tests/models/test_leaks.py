"""The leak check: what is honest passes, and each way of knowing the future is found by the check that is for it."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pytest
import torch

from models.forecast import leaks
from models.forecast.forecasting import ForecastBatch
from models.forecast.multivariate import Multivariate, Scaling, Seen
from models.forecast.plan import Plan, Wanted
from models.forecast.table import RawTable, Table, TablePart, read
from models.forecast.windows import TableWindows, WindowOptions, held
from models.layers import State
from tests.models import plant

pytestmark = pytest.mark.long

OPTIONS = WindowOptions(batch=8, length=64, batches=4)
WANTED = Wanted(plant.HORIZON)
COLUMNS, EXAMPLES, CHOICE, FORECASTS, PROOF, PARTS = range(6)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> RawTable:
    return read(plant.write(tmp_path_factory.mktemp("plant") / "plant.csv", 700), None, print)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "BEFORE", 64)


def found(plan: Plan, model: Multivariate | None = None) -> list[bool]:
    made = model or plan.model()
    torch.nn.init.normal_(made.network.head.weight, std=0.1)  # a fresh one is persistence, which looks nowhere
    findings = leaks.find(plan, lambda raw: type(plan)(raw, WANTED, OPTIONS), made)
    return [finding.ok for finding in findings]


def failing(number: int) -> list[bool]:
    return [row != number for row in range(6)]


def test_an_honest_plan_and_model_pass(raw: RawTable) -> None:
    assert all(found(Plan(raw, WANTED, OPTIONS)))


def test_only_what_comes_later_is_changed(raw: RawTable) -> None:
    middle = float(raw.times[300])
    other = leaks.changed(raw, middle)
    kept = raw.times <= middle
    assert np.array_equal(other.values[kept], raw.values[kept], equal_nan=True)
    assert not (other.values[~kept] == raw.values[~kept]).any()
    assert np.isnan(other.values[~kept]).any()


class Peeks(Multivariate):
    """Fills what is missing with what comes next, as an interpolation before the split would."""

    def see(self, x: torch.Tensor, state: State) -> tuple[Seen, State]:
        count = len(self.config.variables)
        filled = x.clone()
        for t in range(x.shape[1] - 2, -1, -1):
            lost = filled[:, t, count : 2 * count] < 0.5
            for offset in (0, count):
                now, then = filled[:, t, offset : offset + count], filled[:, t + 1, offset : offset + count]
                filled[:, t, offset : offset + count] = torch.where(lost, then, now)
        return super().see(filled, state)


class Centres(Multivariate):
    """Takes the mean of all that it is given, the future with it."""

    def see(self, x: torch.Tensor, state: State) -> tuple[Seen, State]:
        seen, state = super().see(x, state)
        return seen._replace(inputs=seen.inputs - seen.inputs.mean(1, keepdim=True)), state


def test_a_model_that_looks_ahead_is_found(raw: RawTable) -> None:
    plan = Plan(raw, WANTED, OPTIONS)
    for kind in (Peeks, Centres):
        model = kind(plan.config()).eval()
        model.set_scaling(plan.scaling)
        assert found(plan, model) == failing(FORECASTS), kind


def test_a_check_that_can_not_see_says_so(raw: RawTable) -> None:
    plan = Plan(raw, WANTED, OPTIONS)

    class Deaf(Multivariate):
        def forward(self, x: torch.Tensor, state: State) -> tuple[dict[str, torch.Tensor], State]:
            said, state = super().forward(x, state)
            return {name: torch.zeros_like(tensor) for name, tensor in said.items()}, state

    assert found(plan, Deaf(plan.config()).eval()) == failing(PROOF)


class ScalesAll(Plan):
    """Mean and deviation of all rows."""

    @cached_property
    def scaling(self) -> Scaling:
        return Scaling.of(self.table.values[:, self.columns])


class FillsAll(Plan):
    """Missing readings of the file are filled with the next one, before it is split."""

    @cached_property
    def table(self) -> Table:
        table = super().table
        values = table.values.copy()
        for row in range(len(values) - 2, -1, -1):
            values[row] = np.where(np.isnan(values[row]), values[row + 1], values[row])
        return table._replace(values=values)


class NoGap(Plan):
    """Parts that touch: the last labels of one are the first rows of the next."""

    @cached_property
    def parts(self) -> dict[str, TablePart]:
        training, validation, test = super().parts.values()
        ends = training.end, validation.end
        return {"training": training, "validation": TablePart(ends[0], ends[1]), "test": TablePart(ends[1], test.end)}


class Crosses(Plan):
    """Training labels may be of the rows behind the training part."""

    def windows(self, seed: int) -> TableWindows:
        training = self.parts["training"]
        return TableWindows(
            self.material, TablePart(training.first, training.end + 4), self.horizon, self.examples, seed
        )


class PicksByTest(Plan):
    def held(self) -> ForecastBatch:
        return held(self.material, self.parts["test"], self.examples, self.horizon)


@pytest.mark.parametrize(
    ("kind", "checks"),
    [
        (ScalesAll, {COLUMNS, EXAMPLES, CHOICE}),  # scaled examples, too
        (NoGap, {PARTS}),
        (Crosses, {EXAMPLES, PARTS}),
        (PicksByTest, {CHOICE}),
    ],
)
def test_a_plan_that_lets_the_future_in_is_found(kind: type[Plan], checks: set[int], raw: RawTable) -> None:
    assert found(kind(raw, WANTED, OPTIONS)) == [number not in checks for number in range(6)]


def test_gaps_that_are_filled_before_the_split_are_found(raw: RawTable) -> None:
    assert not found(FillsAll(raw, WANTED, OPTIONS))[FORECASTS]
