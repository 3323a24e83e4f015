"""`streamer forecast`, end to end: what goes in, what comes out, and what is told."""

from __future__ import annotations

import csv
import gzip
import json
import math
import subprocess
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from matplotlib.figure import Figure

from streamer.commands.plot import Past, _draw_readings
from streamer.sensors.look import look
from tests.cli.command import ROOT, STREAMER, environment, one_line, streamer
from tests.sensors.support import feed, fleet

MODEL = "forecast-online"
HOURS = 120


def waves(hours: int = HOURS) -> list[tuple[str, float, float]]:
    """(time, temperature, humidity) each hour."""
    rng = np.random.default_rng(0)
    rows = []
    for hour in range(hours):
        wave = math.sin(2 * math.pi * hour / 24)
        time = f"2026-03-{1 + hour // 24:02} {hour % 24:02}:00"
        rows.append((time, round(20 + 3 * wave + rng.normal() / 10, 2), round(60 - 9 * wave + rng.normal() / 3, 1)))
    return rows


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "sensors.csv"
    path.write_text("time,temperature,humidity\n" + "".join(f"{t},{a},{b}\n" for t, a, b in waves()))
    return path


def objects(stdout: bytes) -> list[dict]:
    return [json.loads(line) for line in stdout.decode().splitlines()]


def test_one_line_for_each_reading_with_the_promised_keys(table: Path) -> None:
    done = streamer("forecast", "--model", MODEL, "--json", table)
    assert (done.returncode, done.stderr) == (0, b"")
    rows = objects(done.stdout)
    assert len(rows) == 2 * HOURS
    assert list(rows[0]) == ["stream", "time", "value", "quantiles", "anomaly"]
    assert rows[0]["time"] == "2026-03-01T00:00:00Z"
    assert [row["value"] for row in rows if row["stream"] == "humidity"] == [b for _, _, b in waves()]
    last = rows[-1]["quantiles"]
    assert [len(last[level]) for level in ("0.05", "0.5", "0.95")] == [24, 24, 24]
    assert all(low < middle < high for low, middle, high in zip(last["0.05"], last["0.5"], last["0.95"], strict=True))
    assert all(0 < row["anomaly"] <= 1 for row in rows)
    afternoon, night = last["0.5"][6], last["0.5"][18]  # the readings end at midnight; humidity is a wave upside down
    assert afternoon < 56
    assert night > 64


@pytest.mark.long
def test_packed_long_and_ndjson_forms_give_the_same(table: Path, tmp_path: Path) -> None:
    plain = objects(streamer("forecast", "--model", MODEL, "--json", table).stdout)
    (tmp_path / "sensors.csv.gz").write_bytes(gzip.compress(table.read_bytes()))
    lines = [
        json.dumps({"ts": time, "id": name, "value": value})
        for time, a, b in waves()
        for name, value in (("temperature", a), ("humidity", b))
    ]
    (tmp_path / "sensors.ndjson").write_text("\n".join(lines) + "\n")
    for other in ("sensors.csv.gz", "sensors.ndjson"):
        found = objects(streamer("forecast", "--model", MODEL, "--json", tmp_path / other).stdout)
        assert [row["stream"] for row in found] == [row["stream"] for row in plain]
        for mine, theirs in zip(found, plain, strict=True):
            assert mine["value"] == theirs["value"]
            assert np.allclose(mine["quantiles"]["0.5"], theirs["quantiles"]["0.5"], rtol=1e-3)


@pytest.mark.long
def test_a_surprise_has_a_small_probability(table: Path, tmp_path: Path) -> None:
    rows = waves(400)
    rows[390] = (rows[390][0], rows[390][1] + 5, rows[390][2])
    rows = [(f"{1772323200 + 3600 * i}", a, b) for i, (_, a, b) in enumerate(rows)]
    path = tmp_path / "odd.csv"
    path.write_text("time,temperature,humidity\n" + "".join(f"{t},{a},{b}\n" for t, a, b in rows))
    found = objects(streamer("forecast", "--model", MODEL, "--json", "--value", "temperature", path).stdout)
    assert found[390]["anomaly"] < 1e-4
    # reading 239 happens to lie 3.9 of the noise's deviations off the wave, and is told to be one in hundreds
    assert min(row["anomaly"] for row in found[200:390]) > 1e-3


def test_each_reading_is_answered_before_the_next_comes(table: Path) -> None:
    command = [*STREAMER, "forecast", "--model", MODEL, "--json", "--step", "3600", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"time,a\n")
        for hour in range(5):
            process.stdin.write(f"{1772323200 + 3600 * hour},{hour}\n".encode())
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["value"] == hour  # nothing more is written until it is there
        process.stdin.close()
        assert process.wait(30) == 0


def test_the_table_scores_its_own_forecasts(table: Path) -> None:
    done = streamer("forecast", "--model", MODEL, table)
    text = done.stdout.decode()
    assert done.returncode == 0
    assert "MASE 1-24" in text
    (row,) = [line for line in text.splitlines() if "temperature" in line]
    assert f" {HOURS} " in row


@pytest.mark.long
def test_csv_and_picture(table: Path, tmp_path: Path) -> None:
    picture = tmp_path / "out.png"
    done = streamer("forecast", "--model", MODEL, "--csv", "--plot", picture, table)
    lines = done.stdout.decode().splitlines()
    assert lines[0].startswith("stream,from,ahead,time,0.05,")
    assert len(lines) == 1 + 2 * 24
    assert lines[1].split(",")[3] == "2026-03-06T00:00:00Z"
    assert picture.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.long
def test_parquet(table: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    done = streamer("forecast", "--model", MODEL, "--parquet", path, "--csv", "--last", "2", table)
    assert done.returncode == 0
    found = pyarrow.parquet.read_table(path)
    lines = list(csv.DictReader(done.stdout.decode().splitlines()))
    assert found.column_names == list(lines[0])
    assert found.num_rows == len(lines) == 2 * 2 * 24
    for row, line in zip(found.to_pylist(), lines, strict=True):
        assert (row["stream"], row["ahead"]) == (line["stream"], int(line["ahead"]))
        assert row["time"] == datetime.fromisoformat(line["time"])
        assert row["0.5"] == pytest.approx(float(line["0.5"]), rel=1e-5)
    (tmp_path / "none.csv").write_text("time,a\n1772323200,\n")
    (tmp_path / "none.json").write_text('{"time": 1772323200, "a": null}')
    for name in ("none.csv", "none.json"):
        path.unlink()
        assert b"internal" not in streamer("forecast", "--model", MODEL, "--parquet", path, tmp_path / name).stderr
        assert pyarrow.parquet.read_table(path).num_rows == 0


@pytest.mark.long
def test_gaps_duplicates_late_readings_and_bad_lines_are_told(tmp_path: Path) -> None:
    rows = [f"{1772323200 + 3600 * i},{20 + i % 5}" for i in range(60)]
    rows[30:33] = []
    rows[40:40] = [rows[39], rows[20], "yesterday,20", "1772400000"]
    (tmp_path / "odd.csv").write_text("time,a\n" + "\n".join(rows) + "\n")
    done = streamer("forecast", "--model", MODEL, tmp_path / "odd.csv")
    assert done.returncode == 1
    assert "3 steps without a reading, 1 duplicates left out, 1 late readings left out" in done.stdout.decode()
    told = done.stderr.decode()
    assert "line 44" in told
    assert "2 of 62 lines could not be read" in told
    assert streamer("forecast", "--model", MODEL, "--lenient", tmp_path / "odd.csv").returncode == 0


@pytest.mark.long
def test_mistakes_are_one_line(table: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (["--value", "pressure", table], "pressure"),
        (["--model", "digits", table], "does not forecast"),
        (["--json", "--csv", table], "exclude each other"),
        (["--step", "0", table], "seconds between two readings"),
        (["--plot", tmp_path / "a.gif", table], ".png"),
        (["--parquet", tmp_path / "no" / "a.parquet", table], "no folder"),
        ([tmp_path / "nowhere.csv"], "nowhere.csv"),
    ):
        done = streamer("forecast", *arguments)
        assert done.returncode == 2
        assert message in one_line(done.stderr)
    done = streamer("forecast", "--model", MODEL, "--capacity", "1", table)
    assert done.returncode != 0
    assert "--capacity allows more" in one_line(done.stderr)


def test_the_sample_sensor_is_forecast_well() -> None:
    done = streamer("forecast", "--scores", "/dev/stdout", "--json", "--last", "1", ROOT / "samples" / "sensor.csv")
    scores = json.loads(done.stdout.decode().split("\n", 2)[2])["streams"]
    assert set(scores) == {"temperature", "humidity"}
    for found in scores.values():
        assert found["life"]["all"]["mase"] < 1.1
        assert 0.8 < found["last 1000"]["all"]["coverage"] < 0.97
        assert list(found["life"]) == ["1", "2-6", "7-24", "25-48", "all"]


def test_the_picture_draws_no_line_across_a_gap() -> None:
    made = fleet()
    try:
        told = feed(made, [("a", float(hour), 1.0) for hour in (0, 1, 2, 3, 8, 9, 10)])
        sensor = look(made, "a")
        assert sensor is not None
        axes = Figure().subplots()
        past = [Past(*row) for row in zip(told.times.tolist(), told.values.tolist(), [1.0] * 6 + [1e-5], strict=True)]
        _draw_readings(axes, made.layout, sensor, past, timed=True)
        drawn = np.asarray(axes.lines[0].get_ydata(), float)
        assert np.asarray(axes.lines[1].get_ydata(), float).tolist() == [1.0]  # what is rare is marked
        assert np.isnan(drawn).nonzero()[0].tolist() == [4]
    finally:
        made.close()
