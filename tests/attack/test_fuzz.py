"""The attack, small; that it notices a crash, and what hangs, is tried on a parser that does both."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.attack import Scale
from bench.attack.fuzz import fuzz, run
from bench.attack.parsers import Parser

pytestmark = pytest.mark.long


def test_nothing_crashes(toy: Path) -> None:
    rows = list(run(Scale(share=0.004), toy))
    assert len(rows) >= 19
    assert [row for row in rows if not row.held] == []


def test_a_crash_is_noticed() -> None:
    def read(data: bytes) -> None:
        if b"null" in data and b"a" in data:
            raise KeyError("found")
        raise ValueError("refused")

    found = fuzz(Parser(read, (ValueError,), (b"abc",)), 30.0, 0)
    assert found["crash"] == "KeyError: 'found'"
