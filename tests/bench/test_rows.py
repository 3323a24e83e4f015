"""Rows through every road, short."""

from __future__ import annotations

import json

import pytest

from bench import rows


@pytest.mark.long
@pytest.mark.timeout(900)  # adoption is most of it
def test_every_road_answers(capsys: pytest.CaptureFixture[str]) -> None:
    rows.main(["--streams", "1", "3", "--seconds", "0.5", "--turns", "1", "--json"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(found) == {"1", "3"}
    for roads in found.values():
        assert set(roads) == set(rows.ROADS)
        for road in roads.values():
            assert road["rows_per_second"] > 0
            assert 0 < road["p50_ms"] <= road["p95_ms"]
