"""Which requests with rows leave the event loop for a thread, and how often."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from streamer.serve import parse_threads
from streamer.streams.registry import Registry
from tests.engine.support import running
from tests.serve.in_process import application, ask
from tests.serve.kserve.plant import plant, rows, truth


class Threads(ThreadPoolExecutor):
    """Those for what is long, counted."""

    count = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.count += 1
        return super().submit(fn, *args, **kwargs)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with running(plant(tmp_path), folder=tmp_path, store=True, lanes=1) as registry:
        yield registry


def of_json(count: int) -> bytes:
    return json.dumps(rows(1, count).tolist()).encode()


@pytest.mark.parametrize(
    ("body", "headers", "hops"),
    [
        (of_json(2), {}, 0),
        (of_json(2000), {}, 2),  # to be read, and its answer to be written
        (gzip.compress(b" " * 4_000_000 + of_json(2)), {"content-encoding": "gzip"}, 1),  # short, and long unpacked
    ],
)
def test_a_stream_that_is_awake_takes_a_thread_only_for_what_is_long(
    registry: Registry, body: bytes, headers: dict[str, str], hops: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = Threads(2)
    monkeypatch.setattr(parse_threads, "_threads", threads)
    monkeypatch.setattr(parse_threads, "_json", threads)

    async def requests() -> None:
        app = application(registry)
        status, _ = await ask(app, "POST", "/v1/streams/a", of_json(2), "model=plant")
        assert status == 200
        before = threads.count
        status, answer = await ask(app, "POST", "/v1/streams/a", body, headers=headers)
        assert (status, json.loads(answer)["resumed"]) == (200, True)
        assert threads.count - before == hops

    with threads:
        asyncio.run(requests())


def test_requests_sent_together_are_run_in_their_order(registry: Registry) -> None:
    async def requests() -> list[Any]:
        app, given = application(registry), rows(2, 40)
        posts = (
            ask(app, "POST", "/v1/streams/b", json.dumps(given[at : at + 2].tolist()).encode(), "model=plant")
            for at in range(0, 40, 2)
        )
        return [json.loads(body) for _, body in await asyncio.gather(*posts)]

    answers = asyncio.run(requests())
    assert [answer["position"] for answer in answers] == list(range(2, 42, 2))
    found = [row for answer in answers for event in answer["events"] for row in event["outputs"]["y"]]
    assert found == truth(rows(2, 40)).tolist()
