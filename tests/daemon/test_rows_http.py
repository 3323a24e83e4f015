"""Rows over HTTP: each request is answered with its outputs, the stream in between is the daemon's."""

from __future__ import annotations

import http.client
import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.daemon.running import Running, daemon
from tests.daemon.test_rows import joined, same, whole
from tests.rows import row_model, some_rows

Answer = tuple[int, Any]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("rows")
    given = row_model(folder, name="given", condition=True, several=True, chunk=2)
    return [
        row_model(folder),
        row_model(folder, name="four", chunk=4),
        row_model(folder, name="trap", fails_on=7.0),
        given,
    ]


@pytest.fixture(scope="module")
def serving(models: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with daemon(tmp_path_factory.mktemp("serving"), *models, checkpoint_seconds=0.2) as running:
        yield running


def ask(running: Running, method: str, key: str, body: Any = None, query: str = "", **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=60)
    try:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, f"/v1/streams/{quote(key)}?{query}", data, named)
        answer = connection.getresponse()
        text = answer.read().decode()
        if answer.getheader("content-type") == "application/x-ndjson":
            return answer.status, [json.loads(line) for line in text.splitlines()]
        return answer.status, json.loads(text) if text else None
    finally:
        connection.close()


def post(running: Running, key: str, rows: NDArray[Any], query: str = "model=plant") -> dict[str, Any]:
    status, answer = ask(running, "POST", key, {"values": rows["x"].astype(float).tolist()}, query)
    assert status == 200, answer
    return answer


def test_requests_go_on_where_the_last_one_stood(serving: Running, models: list[Path]) -> None:
    rows = some_rows(1, 20)
    events = []
    for number, part in enumerate(np.array_split(rows, 6)):
        answer = post(serving, "one/by one", part)
        events += answer["events"]
        assert (answer["stream"], answer["model"], answer["resumed"]) == ("one/by one", "plant", number > 0)
        assert answer["position"] == len(events)
    same(joined(events), whole(models[0], rows))
    status, found = ask(serving, "GET", "one/by one")
    assert (status, found["position"], found["state"], found["model"]) == (200, 20, "waiting", "plant")
    assert 0 <= found["age_seconds"] < 60
    assert ask(serving, "DELETE", "one/by one")[0] == 204
    assert ask(serving, "GET", "one/by one")[0] == 404
    assert ask(serving, "DELETE", "one/by one")[0] == 404
    assert post(serving, "one/by one", rows[:1])["resumed"] is False


def test_rows_less_than_a_chunk_wait_for_the_rest_or_the_end(serving: Running, models: list[Path]) -> None:
    rows = some_rows(2, 7)
    first = post(serving, "slow", rows[:3], "model=four")
    assert (first["position"], first["events"]) == (3, [])
    second = post(serving, "slow", rows[3:], "model=four&end=1")
    assert [event["type"] for event in second["events"]] == ["outputs", "outputs", "end"]
    same(joined(second["events"][:2]), whole(models[1], rows))
    assert ask(serving, "GET", "slow")[0] == 404


def test_every_form_of_body_is_the_same_rows(serving: Running, models: list[Path]) -> None:
    rows = some_rows(3, 4)
    values = rows["x"].astype(float).tolist()
    lines = "\n".join(json.dumps(row) for row in values).encode()
    forms: list[tuple[Any, dict[str, str]]] = [
        (values, {}),
        ({"values": values}, {"Content_Type": "application/json"}),
        ({"inputs": {"x": values}}, {}),
        (lines, {"Content_Type": "application/x-ndjson"}),
        (rows.tobytes(), {"Content_Type": "application/octet-stream"}),
    ]
    for number, (body, headers) in enumerate(forms):
        status, answer = ask(serving, "POST", f"form {number}", body, "model=plant", **headers)
        assert status == 200, answer
        if isinstance(answer, list):
            *events, last = answer
            assert (last["type"], last["position"]) == ("position", 4)
        else:
            events = answer["events"]
        same(joined(events), whole(models[0], rows))


def test_several_inputs_and_conditions(serving: Running) -> None:
    body = {"inputs": {"x": [[1, 2, 3], [4, 5, 6]], "y": [1, -1]}, "conditions": {"c": [0.5, 0, 0, -0.5]}}
    status, first = ask(serving, "POST", "given", body, "model=given")
    assert (status, first["position"]) == (200, 2)
    rows = [{"x": [1, 2, 3], "y": 1}, {"x": [4, 5, 6], "y": -1}]
    lines = "\n".join(map(json.dumps, rows)).encode()
    status, answer = ask(serving, "POST", "given", lines, "model=given", Content_Type="application/x-ndjson")
    assert (status, answer[-1]["position"]) == (200, 4)
    without = ask(serving, "POST", "not given", {"inputs": body["inputs"]}, "model=given")[1]
    assert without["events"][0]["outputs"]["z"] != first["events"][0]["outputs"]["z"]
    status, answer = ask(serving, "POST", "given", body | {"conditions": {"c": [0, 0, 0, 0]}}, "model=given")
    assert (status, answer["code"]) == (409, "conflict")
    assert ask(serving, "POST", "given", body, "model=given")[0] == 200  # the same ones may be said again


@pytest.mark.parametrize(
    ("body", "query", "headers", "status", "message"),
    [
        ([[1, 2]], "model=plant", {}, 400, "a row of input 'x' has the shape [2]: x float32 [3] is expected"),
        (b"[[1,2,NaN]]", "model=plant", {}, 400, "the body is not JSON"),
        (b"hello", "model=plant", {}, 400, "the body is not JSON"),
        (b"[1,2,3]\nx", "model=plant", {"Content_Type": "application/x-ndjson"}, 400, "not lines of JSON"),
        (b"1234", "model=plant", {"Content_Type": "application/octet-stream"}, 400, "rows of 12 bytes"),
        ({"rows": []}, "model=plant", {}, 400, "'rows' is not values, inputs, options or conditions"),
        ([[1, 2, 3]], "model=nothing", {}, 404, "no model 'nothing' is served here"),
        ({"values": [], "options": {"a": 1}}, "model=plant", {}, 400, "has no options for a stream"),
        ({"values": [], "conditions": {"a": 1}}, "model=plant", {}, 400, "no condition 'a'"),
        ([[1, 2, 3]], "model=plant&position=5", {}, 409, "the stream stands at row 0, not 5"),
        ([[1, 2, 3]], "model=plant&position=x", {}, 400, "position is a number of rows"),
        ([[1, 2, 3]], "model=plant", {"Content_Encoding": "br"}, 415, "Content-Encoding 'br'"),
    ],
)
def test_what_is_refused_leaves_nothing(
    serving: Running, body: Any, query: str, headers: dict[str, str], status: int, message: str
) -> None:
    got, answer = ask(serving, "POST", "refused", body, query, **headers)
    assert got == status, answer
    assert message in answer["error"]
    assert ask(serving, "GET", "refused")[0] == 404


def test_a_row_is_neither_sent_twice_nor_left_out(serving: Running) -> None:
    post(serving, "counted", some_rows(1, 3), "model=plant&position=0")
    status, answer = ask(serving, "POST", "counted", [[1, 2, 3]], "position=0")
    assert (status, answer["position"]) == (409, 3)
    assert post(serving, "counted", some_rows(1, 1), "position=3")["position"] == 4


def test_another_model_does_not_get_the_stream(serving: Running) -> None:
    post(serving, "mine", some_rows(1, 3))
    status, answer = ask(serving, "POST", "mine", [[1, 2, 3]], "model=four")
    assert (status, answer["code"]) == (409, "conflict")
    assert post(serving, "mine", some_rows(1, 3), "")["position"] == 6  # the model that it has


@pytest.mark.parametrize("key", ["a\x7fb", "\u200b", "x" * 201])
def test_a_key_that_is_no_name(serving: Running, key: str) -> None:
    status, answer = ask(serving, "POST", key, [[1, 2, 3]], "model=plant")
    assert (status, answer["code"]) == (400, "key")


def test_a_row_that_fails_ends_its_stream_and_no_other(serving: Running, models: list[Path]) -> None:
    rows = some_rows(4, 30)
    with ThreadPoolExecutor(4) as pool:
        good = [
            pool.submit(
                lambda n=n: [post(serving, f"good {n}", part, "model=trap") for part in np.array_split(rows, 10)]
            )
            for n in range(3)
        ]
        status, answer = ask(serving, "POST", "bad", [[1, 2, 3], [7, 7, 7], [1, 2, 3]], "model=trap")
        assert (status, answer["code"]) == (500, "model_failed")
        for future in good:
            same(joined([e for answer in future.result() for e in answer["events"]]), whole(models[2], rows))
    assert ask(serving, "GET", "bad")[0] == 404


def test_requests_of_one_key_take_turns(serving: Running, models: list[Path]) -> None:
    """Many at once: every row is run, once, and each answer has its own."""
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: post(serving, "busy", some_rows(n, 5), "model=plant"), range(16)))
    events = sorted((event for answer in answers for event in answer["events"]), key=lambda event: event["start"])
    assert [event["start"] for event in events] == list(range(80))
    assert all(answer["events"][0]["start"] == answer["position"] - 5 for answer in answers)
    order = sorted(range(16), key=lambda n: answers[n]["position"])
    same(joined(events), whole(models[0], np.concatenate([some_rows(n, 5) for n in order])))


def test_what_is_answered_as_safe_survives_a_kill(models: list[Path], tmp_path: Path) -> None:
    rows = some_rows(5, 30)
    events = []
    for first, last in [(0, 10), (10, 11), (11, 30)]:
        with daemon(tmp_path, *models, checkpoint_seconds=3600) as running:
            answer = post(running, "pump", rows[first:last], f"model=four&safe=1&position={first}")
            assert (answer["position"], answer["acknowledged"]) == (last, last)
            events += answer["events"]
            running.stop(signal.SIGKILL)
    same(joined(events), {n: a[: 28 if n != "count" else 14] for n, a in whole(models[1], rows).items()})


def test_a_stream_goes_to_sleep_and_is_woken_by_its_next_row(models: list[Path], tmp_path: Path) -> None:
    rows = some_rows(6, 8)
    with daemon(tmp_path, *models, grace_seconds=0, checkpoint_seconds=0.05) as running:
        events = post(running, "sleeper", rows[:5])["events"]
        while ask(running, "GET", "sleeper")[1]["state"] != "asleep":
            pass
        assert running.metrics()['streamer_state_bytes{model="plant"}'] == 0
        events += post(running, "sleeper", rows[5:])["events"]
        same(joined(events), whole(models[0], rows))


def test_more_keys_than_slots(models: list[Path], tmp_path: Path) -> None:
    """The stream that has waited the longest sleeps on the disk meanwhile."""
    with daemon(tmp_path, models[0], capacity=2) as running:
        for turn in range(3):
            for number in range(5):
                assert post(running, f"pump {number}", some_rows(number, 2), "")["position"] == 2 * turn + 2
        assert running.metrics()['streamer_evictions_total{reason="capacity"}'] > 0


def test_requests_beyond_their_bounds_are_told_to_come_again(models: list[Path], tmp_path: Path) -> None:
    """Neither the number of requests nor the memory of their bodies grows without end."""
    with daemon(tmp_path, models[0], max_requests=2, max_request_memory=2**20, body_seconds=60) as running:
        slow = [http.client.HTTPConnection("127.0.0.1", running.port, timeout=60) for _ in range(2)]
        for number, connection in enumerate(slow):
            connection.putrequest("POST", f"/v1/streams/slow{number}?model=plant")
            connection.putheader("Content-Length", str(700_000))
            connection.endheaders()
            connection.send(b" " * 400_000)
        while running.metrics()["streamer_request_bytes"] < 800_000:
            pass
        status, answer = ask(running, "POST", "third", [[1, 2, 3]])
        assert status == 503
        assert "max_requests" in answer["error"]
        assert running.get("/healthz")[0] == 200
        slow[0].send(b" " * 300_000)  # more than both may hold
        answer0 = slow[0].getresponse()
        assert (answer0.status, answer0.getheader("retry-after")) == (503, "1")
        assert "max_request_memory" in json.loads(answer0.read())["error"]
        slow[1].send(b" " * 299_988 + b"[[1.0,2,3]]\n")
        assert json.loads(slow[1].getresponse().read())["position"] == 1
        for connection in slow:
            connection.close()
        page = running.metrics()
        assert page['streamer_refused_requests_total{reason="requests"}'] == 1
        assert page['streamer_refused_requests_total{reason="bytes"}'] == 1
        assert (page["streamer_requests"], page["streamer_request_bytes"]) == (0, 0)


def test_an_answer_that_would_be_too_long_is_refused_before_its_rows_are_taken(
    models: list[Path], tmp_path: Path
) -> None:
    with daemon(tmp_path, models[0], max_body_bytes=4096) as running:
        status, answer = ask(
            running, "POST", "long", bytes(12 * 300), "model=plant", Content_Type="application/octet-stream"
        )
        assert status == 413
        assert "send 240 at a time" in answer["error"]
        assert ask(running, "GET", "long")[0] == 404


@pytest.mark.long
def test_while_it_drains_requests_are_told_to_come_again(models: list[Path], tmp_path: Path) -> None:
    with daemon(tmp_path, models[0]) as running:
        kept = http.client.HTTPConnection("127.0.0.1", running.port, timeout=60)
        kept.request("GET", "/readyz")
        kept.getresponse().read()
        post(running, "pump", some_rows(1, 5))
        assert running.stop() == 0
        kept.close()
    with daemon(tmp_path, models[0]) as running:
        assert post(running, "pump", some_rows(2, 5))["position"] == 10
