"""A small share of the attack, against a real daemon: all parts of it happen, and nobody is refused without a word."""

from __future__ import annotations

import pytest

from bench import setup
from bench.attack import Scale
from bench.attack.overload import overloaded

pytestmark = pytest.mark.long


def test_too_many_live_streams(attacked: setup.Served) -> None:
    rows = overloaded(attacked, Scale(0.01))
    assert [row.what.partition(" ")[0] for row in rows] == [
        "p99",
        "p99",
        "refused",
        "p99",
        "refused",
        "in",
        "in",
        "p99",
        "files",
    ]
    for row in rows:
        if row.what.startswith("refused") and row.found != "none was refused":
            assert row.held, row.found
    assert setup.get(attacked.port, "/healthz") == "ok\n"
