"""A disk that takes its time over a stream that is put to sleep: whoever comes back meanwhile does not wait for it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.engine.support import PATIENCE, Events, running
from tests.toys import samples


def test_a_stream_with_nothing_to_run_is_not_held_while_the_disk_is_waited_for(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(toy, folder=tmp_path, store=True, checkpoint_seconds=3600) as registry:
        session = registry.open(model=None, sample_rate=8000, sink=Events(), key="k")
        registry.detach(session)
        store: Any = registry.store
        put, writing, free = store.put, threading.Event(), threading.Event()

        def slow(rows: Any) -> None:
            writing.set()
            assert free.wait(PATIENCE)
            put(rows)

        monkeypatch.setattr(store, "put", slow)
        gone: list[bool] = []
        evicting = threading.Thread(target=lambda: gone.append(registry.keeper.evict(session, "grace")))
        evicting.start()
        try:
            assert writing.wait(PATIENCE)
            again = registry.reattach("k", Events())
            assert again is session
            ran = threading.Event()
            session.feed(samples(1, 6400).tobytes())
            session.when_run(ran.set)
            assert ran.wait(PATIENCE), "it waits for the disk"
        finally:
            free.set()
            evicting.join(PATIENCE)
        assert gone == [False], "it goes on, so it stays"
        assert registry.look("k")["state"] == "attached"
