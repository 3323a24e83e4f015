"""JSON, as programs and services write it, and bare payloads on standard input."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import environment
from tests.inputs.cases import Case, hold, run
from tests.inputs.inside import MODEL, forecast

ORDER = 4
ABOUT = {
    "JSON": "One object a line, several on a line, one over many lines, or an array. Numbers at any depth are read, and"
    " are called by the keys to them with dots between: `ENERGY.Power`. `--value` names those that are wanted.",
    "Payloads on standard input": "Lines of numbers or JSON objects, as `mosquitto_sub` prints them; with a topic"
    " before each (`-v`) every topic is a stream.",
}
JSON, PAYLOADS = ABOUT
AT = "2024-05-01T00:00:00Z"


def written(*lines: Any) -> Callable[[Path], object]:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    return lambda folder: (folder / "data.json").write_text("\n".join(texts) + "\n")


def case(
    name: str, make: Callable[[Path], object], readings: int, says: str = "", exit: int = 0, more: str = ""
) -> Case:
    outcome = "refused" if readings < 0 else f"{readings} readings" if readings != 1 else "1 reading"
    said = "\n".join(f"streamer: {line}" for line in says.splitlines())
    command = f"streamer forecast data.json --json{more} | wc -l"
    return Case(name, JSON, command, outcome, make, exit, said, str(max(0, readings)))


def payloads(name: str, command: str, outcome: str, says: str, gives: str, exit: int = 0) -> Case:
    said = "\n".join(f"streamer: -: {line}" for line in says.splitlines())
    return Case(name, PAYLOADS, command, outcome, exit=exit, says=said, gives=gives)


LOST = "data.json: 1 cell could not be read and was left out"
NO_TIME = "data.json: has no times: readings were counted, one second apart (--step SECONDS)\n"
CASES = (
    case("an object a line, numbers as strings too", written({"ts": 1, "a": 1}, {"ts": 2, "a": "2"}), 2),
    case("an array", written([{"ts": 1, "a": 1}, {"ts": 2, "a": 2}]), 2),
    case("an array, printed prettily", written(json.dumps([{"ts": 1, "a": 1}, {"ts": 2, "a": 2}], indent=2)), 2),
    case("objects without ends of lines", written('{"ts":1,"a":1}{"ts":2,"a":2}'), 2),
    case(
        "a line that is cut off",
        written({"ts": 1, "a": 1}, '{"ts":2,"e":{"a":1', {"ts": 3, "a": 3}),
        2,
        "data.json: line 2: is not JSON: it is cut off\ndata.json: 1 of 3 lines could not be read and was left out",
        1,
    ),
    case("`nan`, `NaN` and `None`", written('{"ts":1,"a":1}', '{"ts":2,"a":nan}', '{"ts":3,"a":None}'), 3),
    case(
        "a bad value beside a good one",
        written({"ts": 1, "a": 1, "b": 1}, {"ts": 2, "a": "err", "b": 2}),
        3,
        f"data.json: line 2: column a: 'err' is no number\n{LOST}",
        1,
    ),
    case(
        "words and switches",
        written({"ts": 1, "a": 1, "state": "on", "place": "roof"}),
        1,
        "data.json: columns left out: state (words, such as 'on'; --value state reads it as 1 and 0), "
        "place (words, such as 'roof')",
    ),
    case(
        "a name twice in one object",
        written('{"ts":1,"a":1,"a":2}', '{"ts":2,"a":3}'),
        1,
        "data.json: line 1: has 'a' twice in one object\ndata.json: 1 of 2 lines could not be read and was left out",
        1,
    ),
    case(
        "Tasmota",
        written({"Time": "2024-05-01T00:00:00", "ENERGY": {"Power": [12, 13]}, "TempUnit": "C"}),
        2,
        "data.json: columns left out: TempUnit (words, such as 'C')",
    ),
    case("Zigbee2MQTT", written({"temperature": 21.3, "humidity": 48, "last_seen": AT}), 2),
    case(
        "Shelly",
        written({"src": "s1", "method": "NotifyStatus", "params": {"ts": 1631186545.04, "switch:0": {"apower": 9}}}),
        1,
        "data.json: columns left out: all but params (it is about the device and its network)",
    ),
    case(
        "The Things Stack",
        written(
            {
                "end_device_ids": {"device_id": "d"},
                "received_at": AT,
                "uplink_message": {"f_cnt": 5, "decoded_payload": {"temperature": 21.3}},
            }
        ),
        1,
        "data.json: columns left out: all but decoded_payload (it is about the device and its network)",
    ),
    case(
        "The Things Stack, without a decoder",
        written({"end_device_ids": {"device_id": "d"}, "uplink_message": {"f_cnt": 5}}),
        -1,
        "data.json: line 1: has no decoded payload: the device needs a payload formatter (decoder)\n"
        "data.json: 1 of 1 lines could not be read and was left out\n"
        "data.json: no reading was found: no line and no cell could be read as one",
        2,
    ),
    case(
        "ChirpStack",
        written({"time": AT, "deviceInfo": {"deviceName": "d"}, "object": {"t": 1.5}, "fCnt": 1}),
        1,
        "data.json: columns left out: all but object (it is about the device and its network)",
    ),
    case(
        "Node-RED",
        written({"_msgid": "a", "topic": "x/t", "payload": 21.3}),
        1,
        NO_TIME + "data.json: columns left out: all but payload (it is about the device and its network)",
    ),
    case(
        "Telegraf",
        written({"name": "cpu", "tags": {"host": "a"}, "fields": {"idle": 9, "user": 1}, "timestamp": 1714521600}),
        2,
    ),
    case(
        "Prometheus' API",
        written(
            {
                "status": "success",
                "data": {
                    "resultType": "matrix",
                    "result": [
                        {"metric": {"__name__": "up", "job": "a"}, "values": [[1714521600, "1"], [1714521660, "NaN"]]}
                    ],
                },
            }
        ),
        2,
    ),
    case(
        "InfluxDB 1",
        written(
            {
                "results": [
                    {
                        "series": [
                            {
                                "name": "cpu",
                                "tags": {"host": "a"},
                                "columns": ["time", "idle"],
                                "values": [[AT, 9], ["2024-05-01T00:01:00Z", 8]],
                            }
                        ]
                    }
                ]
            }
        ),
        2,
    ),
    case(
        "ThingSpeak",
        written({"channel": {"id": 9}, "feeds": [{"created_at": AT, "entry_id": 1, "field1": "20.4"}]}),
        1,
        "data.json: columns left out: entry_id (it numbers the lines)",
    ),
    case(
        "Home Assistant's history",
        written(
            [
                [
                    {"entity_id": "sensor.t", "state": "20.4", "last_changed": AT},
                    {"entity_id": "sensor.t", "state": "unavailable", "last_changed": "2024-05-01T00:01:00Z"},
                ]
            ]
        ),
        2,
        "data.json: columns left out: all but state (it is about the device and its network)",
    ),
    case(
        "Open-Meteo",
        written({"latitude": 1, "hourly": {"time": ["2024-05-01T00:00", "2024-05-01T01:00"], "t": [1, 2]}}),
        2,
    ),
    case("pandas, a column an object", written({"t": {"1714521600000": 20.4, "1714521660000": 20.5}}), 2),
    case(
        "pandas, `split`", written({"columns": ["t"], "index": [1714521600000, 1714521660000], "data": [[1], [2]]}), 2
    ),
    case(
        "a list of numbers",
        written("[1, 2, 3]"),
        -1,
        "data.json: line 1: holds 1, which is no JSON object\n"
        "data.json: 1 of 1 lines could not be read and was left out\n"
        "data.json: no reading was found: no line and no cell could be read as one",
        2,
    ),
    payloads(
        "numbers",
        "printf '20.4\\n20.5\\nunavailable\\n' | streamer forecast - --json | wc -l",
        "3 readings",
        "lines without names are one stream, 'value' (mosquitto_sub -v gives each a name)\n"
        "has no times: readings were counted, one second apart (--step SECONDS)",
        "3",
    ),
    payloads(
        "topics and numbers",
        "printf 'a/t 20.4\\na/h 50\\na/t 20.5\\n' | streamer forecast - --json | wc -l",
        "3 readings of 2 streams",
        "has no times: readings were counted, one second apart (--step SECONDS)",
        "3",
    ),
    payloads(
        "topics and JSON",
        """echo 'tele/x/SENSOR {"ENERGY":{"Power":12}}' | streamer forecast - --json | wc -l""",
        "1 reading",
        "has no times: readings were counted, one second apart (--step SECONDS)",
        "1",
    ),
    payloads(
        "topics with spaces",
        "printf 'living room/t 20.4\\nliving room/t 20.5\\n' | streamer forecast - --json | wc -l",
        "2 readings",
        "has no times: readings were counted, one second apart (--step SECONDS)",
        "2",
    ),
    payloads(
        "a table of spaces without a header, which is no topic",
        "printf '2024-05-01 00:00 1 2\\n2024-05-01 00:01 2 3\\n' | streamer forecast -",
        "refused",
        "no header: give --columns date,time,value,value2 (line 1 holds '2024-05-01', which names no column)",
        "",
        2,
    ),
    payloads(
        "a table that descends, in a pipe",
        "printf 'time,a\\n2024-05-01 12:00,3\\n2024-05-01 11:00,2\\n2024-05-01 10:00,1\\n'"
        " | streamer forecast - --json | wc -l",
        "1 reading",
        "2 late readings left out\nmost readings came late: sort them, or name a file, which is sorted (2 late, 1 run)",
        "1",
        1,
    ),
    payloads(
        "numbers, and a word",
        "printf '20.4\\nonline\\n' | streamer forecast - --json | wc -l",
        "1 reading",
        "lines without names are one stream, 'value' (mosquitto_sub -v gives each a name)\n"
        "line 2: 'online' is no number\n"
        "has no times: readings were counted, one second apart (--step SECONDS)\n"
        "1 of 2 lines could not be read and was left out",
        "1",
        1,
    ),
)


@pytest.mark.parametrize("case", [c for c in CASES if c.source == JSON], ids=lambda case: case.name)
def test_case(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    hold(case, forecast(case, tmp_path, monkeypatch, capsys))


@pytest.mark.parametrize("case", [c for c in CASES if c.source == PAYLOADS], ids=lambda case: case.name)
def test_payloads(case: Case, tmp_path: Path) -> None:
    hold(case, run(case, tmp_path, {"forecast": f"--model {MODEL}"}))


@pytest.mark.long
def test_a_pipe_is_answered_line_by_line(tmp_path: Path) -> None:
    """Nothing waits for a line that may never come."""
    command = [sys.executable, "-m", "streamer", "forecast", "--model", MODEL, "-", "--json"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment(), cwd=tmp_path) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        for value in (20.4, 20.5, 20.6):
            running.stdin.write(f"sensors/a {value}\n".encode())
            running.stdin.flush()
            found = json.loads(running.stdout.readline())
            assert (found["stream"], found["value"]) == ("sensors/a", value)
        running.stdin.close()
        assert running.wait(60) == 0
