"""Some of each kind of damage, and a daemon on stores that are empty files."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.attack import Scale
from bench.attack.disks import run
from tests.toys import toy_model

pytestmark = pytest.mark.long


def test_what_was_not_hit_is_there_and_every_loss_is_said(tmp_path: Path) -> None:
    rows = list(run(Scale(0.003), toy_model(tmp_path)))
    assert len(rows) > 30
    assert [(row.what, row.found) for row in rows if not row.held] == []
