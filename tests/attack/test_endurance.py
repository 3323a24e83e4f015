"""The attack, small."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.attack import Scale
from bench.attack.endurance import run

pytestmark = [pytest.mark.long, pytest.mark.soak]


def test_memory_and_descriptors_stay(toy: Path) -> None:
    rows = list(run(Scale(share=0.0005), toy))
    assert len(rows) == 6
    assert [row for row in rows if not row.held] == []
