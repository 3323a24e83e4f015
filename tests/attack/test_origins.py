"""The attack, small."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.attack import Scale
from bench.attack.origins import run


@pytest.mark.long
def test_everything_holds(toy: Path) -> None:
    rows = list(run(Scale(share=0.05), toy))
    assert len(rows) >= 4
    assert [row for row in rows if not row.held] == []
