"""Some kills at every kind of moment, against a real daemon."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.attack import Scale
from bench.attack.kills import run
from tests.toys import toy_model

pytestmark = pytest.mark.long


def test_nothing_is_lost_repeated_or_wrong(tmp_path: Path) -> None:
    rows = list(run(Scale(0.02), toy_model(tmp_path)))
    assert [row.what for row in rows][:3] == ["starts", "sound", "readings"]
    assert [(row.what, row.found) for row in rows if not row.held] == []
