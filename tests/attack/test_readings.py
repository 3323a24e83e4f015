"""A small share of the attack; how fast answers came is the command's affair."""

from __future__ import annotations

import pytest

from bench.attack import Scale
from bench.attack.readings import run

pytestmark = pytest.mark.long


def test_what_is_not_run_is_refused_with_a_reason() -> None:
    rows = list(run(Scale(0.05), model="forecast-online"))
    assert len(rows) == 5
    assert [row for row in rows if not row.held and "slowest" not in row.what] == []
