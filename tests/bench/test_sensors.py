"""The bench of sensors, on few of them: everything that it measures is measured."""

from __future__ import annotations

import json

import pytest

from bench.sensors import main


def test_fleet_and_bare_loop_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--streams", "24", "--rounds", "1", "--lanes", "1"]
    main(["--model", "forecast-online", "--part", "fleet", *few, "--json"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found
    numbers = [value for value in _numbers(found) if isinstance(value, float)]
    assert numbers
    assert min(numbers) > 0


def _numbers(found: object) -> list[object]:
    if isinstance(found, dict):
        return [number for value in found.values() for number in _numbers(value)]
    return [number for value in found for number in _numbers(value)] if isinstance(found, list) else [found]
