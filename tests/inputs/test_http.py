"""Readings over HTTP and WebSocket: what is answered."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import websockets

from streamer.engine.catalogue import resolve
from tests.daemon.running import Running, daemon
from tests.inputs.cases import Case, Result, hold

ORDER = 5
ABOUT = {
    "HTTP": "`POST /v1/readings`. The answer counts what was `taken`, `refused`, `late` and `duplicate`, and names what"
    " was `left_out`. 400: a part of it, or all, could not be read; what could was taken.",
    "WebSocket": "Text frames to `/v1/sensors`, answered as the requests.",
    "InfluxDB's clients": "What they ask before they write.",
}
HTTP, SOCKET, INFLUX = ABOUT
EXPECTED = (
    "Expected is CSV with a header (time,value) or JSON objects, one a line, sent as they are: curl --data-binary @FILE"
    " (-d drops the ends of lines)"
)


@dataclass(frozen=True)
class Sent:
    """``answer``: parts of it that are wanted, JSON; ``None``: it has no body."""

    case: Case
    body: bytes
    answer: Any
    kind: str = "application/octet-stream"
    method: str = "POST"
    path: str = "/v1/readings"


def sent(
    name: str, body: str | bytes, answer: Any, says: str = "", status: int = 200, source: str = HTTP, **more: str
) -> Sent:
    raw = body.encode() if isinstance(body, str) else body
    shown = raw[:60].decode("utf-8", "replace").replace("\r", "").replace("\n", "⏎").replace("\x00", "␀")
    path, method = more.get("path", "/v1/readings"), more.get("method", "POST")
    outcome = "refused" if status >= 400 and not (answer or {}).get("taken") else "taken" if raw else "answered"
    command = f"{method} {path} {shown}".strip() if source != SOCKET else shown
    return Sent(Case(name, source, command, outcome, exit=status, says=says), raw, answer, **more)


SENT = (
    sent("CSV", "time,h.a\n1714521600,1\n1714521660,2\n", {"taken": 2, "refused": 0}),
    sent(
        "a late reading and one twice",
        "time,h.b\n" + "".join(f"{1714521600 + 60 * i},{i}\n" for i in range(12)),
        {"taken": 12, "refused": 0},
    ),
    sent(
        "the same lines again, and one more",
        "time,h.b\n1714521660,1\n1714522260,11\n1714522320,12\n",
        {
            "taken": 1,
            "refused": 0,
            "late": 1,
            "duplicate": 1,
            "left_out": [
                "1 late readings, the first: h.b at 2024-05-01T00:01:00Z",
                "1 readings of a time that had one, the first: h.b at 2024-05-01T00:11:00Z",
            ],
        },
    ),
    sent("lines that descend", "time,h.c\n1714521720,3\n1714521660,2\n1714521600,1\n", {"taken": 3, "refused": 0}),
    sent(
        "one bad cell",
        "time,h.d,h.e\n1714521600,x,1\n1714521660,2,2\n",
        {"taken": 3, "refused": 1},
        "body: line 2: column h.d: 'x' is no number",
        400,
    ),
    sent(
        "a column of words",
        "time,h.f,place\n1714521600,1,roof\n",
        {"taken": 1, "refused": 0, "left_out": ["columns left out: place (words, such as 'roof')"]},
    ),
    sent(
        "UTF-16",
        "time,h.g\n1714521600,1\n".encode("utf-16"),
        {"taken": 1, "refused": 0, "left_out": ["read as UTF-16"]},
    ),
    sent("decimal commas", "time;h.h\n01.05.2024 00:00;20,4\n", {"taken": 1, "refused": 0}),
    sent(
        "dates whose format is given",
        "time,h.i\n01/05/2024,1\n",
        {"taken": 1, "refused": 0},
        path="/v1/readings?time_format=day-first",
    ),
    sent(
        "dates, not told",
        "time,h.i\n01/05/2024,1\n",
        {},
        "body: column time: '01/05/2024' is 2024-05-01 or 2024-01-05: "
        "say which with ?time_format=day-first or month-first (or a pattern, '%d/%m/%Y %H:%M')",
        400,
    ),
    sent("no header, but names", "1714521600,1\n", {"taken": 1}, path="/v1/readings?columns=time,h.j"),
    sent(
        "no header",
        "1714521600,1\n",
        {},
        f"body: no header: give ?columns=time,value (line 1 holds '1714521600', which names no column). {EXPECTED}",
        400,
    ),
    sent(
        "decimal, neither a point nor a comma",
        "time;h.dec\n1714521600;1,234\n",
        {},
        "?decimal='comma': give '.' or ','",
        400,
        path="/v1/readings?decimal=comma",
    ),
    sent(
        "a decimal comma that is given",
        "time;h.dec\n1714521600;1,234\n",
        {"taken": 1, "refused": 0},
        path="/v1/readings?decimal=,",
    ),
    sent(
        "an unknown zone, where no time needs it",
        '{"h.zone":1}',
        {},
        "?zone='Atlantis' is not known: a name such as Europe/Berlin or UTC is needed",
        400,
        path="/v1/readings?zone=Atlantis",
    ),
    sent(
        "a parameter twice",
        "time,h.twice\n1714521600,1\n",
        {},
        "?zone= is there 2 times: give it once",
        400,
        path="/v1/readings?zone=UTC&zone=Europe/Berlin",
    ),
    sent("a missing value alone", "time,h.nan\n2024-05-03,NaN\n", {"taken": 1, "refused": 0}),
    sent("an empty cell alone", "time,h.empty\n2024-05-03,\n", {"taken": 1, "refused": 0}),
    sent("a missing value and an empty column", "time,h.nan,remark\n2024-05-04,NaN,\n", {"taken": 1, "refused": 0}),
    sent(
        "-999 alone, given as missing", "time,h.nan\n2024-05-05,-999\n", {"taken": 1}, path="/v1/readings?missing=-999"
    ),
    sent(
        "a misspelt parameter",
        "time,h.typo\n2024-05-01 10:00,1\n",
        {},
        "unknown parameter 'zon': did you mean zone?",
        400,
        path="/v1/readings?zon=Europe/Berlin",
    ),
    sent(
        "a parameter like no other",
        "time,h.typo\n2024-05-01 10:00,1\n",
        {},
        "unknown parameter 'bucket': there are id, time, value, missing, columns, decimal, time_format, zone, model, "
        "stream, forecast",
        400,
        path="/v1/readings?bucket=b",
    ),
    sent(
        "one column of values, and a name for it",
        "time,value\n1714521600,1\n",
        {"taken": 1, "refused": 0},
        path="/v1/readings?stream=h.named",
    ),
    sent(
        "two columns of values, and one name",
        "time,h.one,h.two\n1714521600,1,2\n",
        {},
        "body: one name, 'h.named', is given to several columns (h.one and h.two): leave ?stream= out, or choose one "
        "with ?value=",
        400,
        path="/v1/readings?stream=h.named",
    ),
    sent(
        "two columns of values in JSON, and one name",
        '{"ts":1714521600,"h.one":1}\n{"ts":1714521600,"h.two":1}',
        {},
        "body: one name, 'h.named', is given to several columns (h.one and h.two): leave ?stream= out, or choose one "
        "with ?value=",
        400,
        path="/v1/readings?stream=h.named",
    ),
    sent(
        "two columns of values, one of them chosen and named",
        "time,h.one,h.two\n1714521660,1,2\n",
        {"taken": 1, "refused": 0},
        path="/v1/readings?stream=h.named&value=h.two",
    ),
    sent(
        "forecast, neither 0 nor 1",
        "time,h.fc\n1714521600,1\n",
        {},
        "?forecast='maybe': give 1 or 0",
        400,
        path="/v1/readings?forecast=maybe",
    ),
    sent(
        "no header, and a column without a name",
        "1714521600,7,1\n",
        {"taken": 1},
        path="/v1/readings?columns=time,,h.gap",
    ),
    sent("a JSON array", '[{"ts":1714521600,"h.k":1},{"ts":1714521660,"h.k":2}]', {"taken": 2, "refused": 0}),
    sent("a JSON object, printed prettily", '{\n  "ts": 1714521600,\n  "h.l": 1\n}', {"taken": 1, "refused": 0}),
    sent(
        "objects whose ends of lines `curl -d` dropped",
        '{"ts":1714521600,"h.m":1}{"ts":1714521660,"h.m":2}',
        {"taken": 2, "refused": 0},
        kind="application/x-www-form-urlencoded",
    ),
    sent(
        "CSV whose ends of lines `curl -d` dropped",
        "time,value1714521600,20.41714521660,20.5",
        {},
        "body: no reading: there is a header (time, value1714521600, 20.41714521660, 20.5) and no line with a value "
        f"below it. {EXPECTED}",
        400,
        kind="application/x-www-form-urlencoded",
    ),
    sent(
        "a bare line",
        "pump1,1630424257,73.9",
        {},
        "body: no header: give ?columns=id,value,value2 (line 1 holds "
        f"'1630424257', which names no column). {EXPECTED}",
        400,
    ),
    sent(
        "a bare number",
        "20.4",
        {},
        f"body: no header: give ?columns=value (line 1 holds '20.4', which names no column). {EXPECTED}",
        400,
    ),
    sent(
        "a header alone",
        "time,value\n",
        {},
        f"body: no reading: there is a header (time, value) and no line with a value below it. {EXPECTED}",
        400,
    ),
    sent("an empty array", "[]", {}, f"body: no reading: nothing in it could be read as one. {EXPECTED}", 400),
    sent("nothing", "", {}, f"body: is empty. {EXPECTED}", 400),
    sent(
        "form data",
        "temp=20.4&time=5",
        {},
        f"body: is form data: readings are CSV or JSON. {EXPECTED}",
        400,
        kind="application/x-www-form-urlencoded",
    ),
    sent(
        "a file as form data (`curl -F`)",
        "--abc\r\nContent-Disposition: form-data\r\n",
        {},
        f"body: form data (curl -F). {EXPECTED}",
        400,
        kind="multipart/form-data; boundary=abc",
    ),
    sent(
        "a workbook",
        b"PK\x03\x04",
        {},
        f"body: is a zip archive or a spreadsheet (xlsx, ods): unpack it, or save the sheet as CSV. {EXPECTED}",
        400,
    ),
    sent(
        "-999, given as missing",
        "time,h.n\n1714521600,-999\n1714521660,2\n",
        {"taken": 1},
        path="/v1/readings?missing=-999",
    ),
    # -- WebSocket
    sent("an object", '{"ts":1714521600,"w.a":1}', {"type": "taken", "readings": 1, "refused": 0}, source=SOCKET),
    sent(
        "one bad value",
        '{"ts":1714521600,"w.b":1}\n{"ts":1714521660,"w.b":"x","w.c":2}',
        {"type": "taken", "readings": 2, "refused": 1},
        "message: line 2: column w.b: 'x' is no number",
        source=SOCKET,
    ),
    sent(
        "an array, empty",
        "[]",
        {"type": "error", "code": "bad_frame"},
        f"message: no reading: nothing in it could be read as one. {EXPECTED}",
        source=SOCKET,
    ),
    sent(
        "a number",
        "20.4",
        {"type": "error"},
        "message: no header: a header is needed, such as time,value (line 1 holds '20.4', which names no column)",
        source=SOCKET,
    ),
    # -- InfluxDB
    sent(
        "a write with parameters that are not for us",
        "m,host=h.q v=1 1714521600",
        None,
        status=204,
        source=INFLUX,
        path="/api/v2/write?org=o&bucket=b&precision=s&consistency=one",
    ),
    sent(
        "an unknown precision",
        "m v=1",
        {},
        "?precision='h2': give one of ns, n, us, u, ms, s, m, h",
        400,
        INFLUX,
        path="/write?precision=h2",
    ),
    sent("hours", "m,host=h.hours v=1 476256", None, status=204, source=INFLUX, path="/write?precision=h"),
    sent("is it there", "", None, status=204, source=INFLUX, method="GET", path="/ping"),
    sent("is it well", "", {"name": "influxdb", "status": "pass"}, source=INFLUX, method="GET", path="/health"),
    sent(
        "a database",
        "",
        {"results": [{"statement_id": 0}]},
        source=INFLUX,
        method="POST",
        path="/query?q=CREATE+DATABASE+%22telegraf%22",
    ),
    sent(
        "a database, in a form",
        "q=CREATE+DATABASE+telegraf",
        {"results": [{"statement_id": 0}]},
        source=INFLUX,
        path="/query",
        kind="application/x-www-form-urlencoded",
    ),
    sent(
        "the databases",
        "",
        {
            "results": [
                {"statement_id": 0, "series": [{"name": "databases", "columns": ["name"], "values": [["streamer"]]}]}
            ]
        },
        source=INFLUX,
        method="GET",
        path="/query?q=SHOW+DATABASES",
    ),
    sent(
        "a query",
        "",
        {},
        "'SELECT * FROM cpu': nothing is stored to be queried; GET /v1/forecast has the forecasts",
        400,
        INFLUX,
        method="GET",
        path="/query?q=SELECT+*+FROM+cpu",
    ),
)
CASES = tuple(each.case for each in SENT)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One daemon; every case has streams of its own, or those of the case before."""
    with daemon(tmp_path_factory.mktemp("inputs"), resolve("forecast-online"), max_sensors=100) as found:
        yield found


def asked(running: Running, each: Sent) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=60)
    try:
        connection.request(each.method, each.path, each.body, {"Content-Type": each.kind})
        answer = connection.getresponse()
        body = answer.read()
        return answer.status, json.loads(body) if body else None
    finally:
        connection.close()


async def told(running: Running, text: str) -> Any:
    async with websockets.connect(f"ws://127.0.0.1:{running.port}/v1/sensors") as socket:
        await socket.send(text)
        return json.loads(await socket.recv())


def _wanted(answer: Any, found: Any) -> Any:
    return {name: found.get(name) for name in answer} if isinstance(answer, dict) and isinstance(found, dict) else found


@pytest.mark.parametrize("each", SENT, ids=lambda each: f"{each.case.source} {each.case.name}")
def test_answer(each: Sent, running: Running) -> None:
    if each.case.source == SOCKET:
        status, found = 200, asyncio.run(told(running, each.body.decode()))
    else:
        status, found = asked(running, each)
    said = found or {}
    message = said.get("error") or said.get("message", "" if "errors" not in said else "; ".join(said["errors"]))
    if each.case.source == INFLUX and status == 200:
        message = ""
    hold(each.case, Result(status, "", message))
    assert _wanted(each.answer, found) == each.answer
