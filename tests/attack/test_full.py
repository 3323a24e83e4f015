"""A disk that fills twice under a real daemon."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.attack import Scale
from bench.attack.full import run
from tests.toys import toy_model

pytestmark = pytest.mark.long


def test_it_says_so_and_goes_on(tmp_path: Path) -> None:
    rows = list(run(Scale(0.1), toy_model(tmp_path)))
    if "mounted" in rows[0].reach:
        pytest.skip(rows[0].found)
    assert len(rows) == 5
    assert [(row.what, row.found) for row in rows if not row.held] == []
