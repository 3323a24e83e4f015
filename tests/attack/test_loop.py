"""A small share of the floods, against a real daemon: what holds on any machine, however slow."""

from __future__ import annotations

import pytest

from bench import setup
from bench.attack import loop

pytestmark = pytest.mark.long


@pytest.mark.parametrize("kind", loop.CONNECTIONS)
def test_a_flood_leaves_the_pages_there_and_the_memory_bounded(kind: str, attacked: setup.Served) -> None:
    rows = list(loop.flooded(attacked, kind, 2, 0.2))
    memory = next(row for row in rows if row.what.startswith("memory"))
    assert memory.held, memory.found
    pages = [row for row in rows if ": p99" in row.what]
    assert len(pages) == len(loop.PAGES)
    assert not [row.found for row in pages if "(0 asked" in row.found]
    assert setup.get(attacked.port, "/healthz") == "ok\n"
