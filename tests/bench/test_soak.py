"""The soak, short: a sensor's bad days leave no mark, and a model that breaks is told."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from bench import soak

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "PHASES", {"well": 600, "stuck": 2000, "spikes": 300, "silent": 300, "well again": 1800})
    monkeypatch.setattr(soak, "SCORED", 300)


def test_bad_days_leave_no_mark(capsys: pytest.CaptureFixture[str]) -> None:
    assert soak.main(["--steps", "18000", "--streams", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["readings"], found["rounds"]) == (20000, 2)
    assert found["worst"] < 6


def test_what_is_not_finite_ends_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run = soak.Model.run

    def broken(self: soak.Model, feeds: dict[str, Any]) -> dict[str, Any]:
        out = run(self, feeds)
        out["quantiles"] = np.full_like(out["quantiles"], np.inf)
        return out

    monkeypatch.setattr(soak.Model, "run", broken)
    assert soak.main(["--steps", "10000", "--streams", "1"]) == 1
    assert "quantiles is not finite" in capsys.readouterr().out
