"""``streamer run``: rows of every format in, outputs of every format out, and errors that name the line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

import streamer as package
from tests.cli.command import one_line, streamer
from tests.rows import row_model, some_rows

ROWS = some_rows(1, 9)["x"]


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return row_model(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return row_model(tmp_path_factory.mktemp("run"), name="several", chunk=4, several=True, condition=True)


@pytest.fixture(scope="module")
def expected(plant: Path) -> np.ndarray:
    return package.load(plant).stream().step(ROWS)["z"]


def as_csv(header: str = "") -> bytes:
    return (header + "".join(",".join(map(str, row)) + "\n" for row in ROWS)).encode()


def as_ndjson() -> bytes:
    return "".join(json.dumps(row.tolist()) + "\n" for row in ROWS).encode()


def as_npy() -> bytes:
    file = io.BytesIO()
    np.save(file, ROWS)
    return file.getvalue()


@pytest.mark.parametrize(
    "data", [as_csv(), as_csv("a,b,c\n"), as_ndjson(), as_npy()], ids=["csv", "header", "ndjson", "npy"]
)
@pytest.mark.parametrize("piped", [True, False])
def test_rows_of_every_format(plant: Path, tmp_path: Path, expected: np.ndarray, data: bytes, piped: bool) -> None:
    (tmp_path / "rows").write_bytes(data)
    done = streamer("run", plant, "-" if piped else tmp_path / "rows", stdin=data if piped else b"")
    assert done.returncode == 0, done.stderr
    header, *lines = csv.reader(done.stdout.decode().splitlines())
    assert header == ["step", "z[0]", "z[1]", "loud", "count"]
    assert [int(line[0]) for line in lines] == list(range(9))
    np.testing.assert_array_equal(np.array([line[1:3] for line in lines], np.float32), expected)
    assert [line[4] for line in lines] == [str(n) for n in range(1, 10)]
    assert one_line(done.stderr) == "9 rows, 9 steps of output"


@pytest.mark.long
def test_outputs_of_every_format(plant: Path, tmp_path: Path, expected: np.ndarray) -> None:
    (tmp_path / "rows.npy").write_bytes(as_npy())
    for name in ("out.csv", "out.ndjson", "out.npz"):
        assert streamer("run", plant, tmp_path / "rows.npy", "-o", tmp_path / name).returncode == 0
    lines = [json.loads(line) for line in (tmp_path / "out.ndjson").read_text().splitlines()]
    np.testing.assert_allclose([line["z"] for line in lines], expected)
    with np.load(tmp_path / "out.npz") as found:
        np.testing.assert_array_equal(found["z"], expected)
        assert found["count"].ravel().tolist() == list(range(1, 10))
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 10


def test_several_inputs_and_a_condition(several: Path, tmp_path: Path) -> None:
    rows = some_rows(2, 8, several=True)
    np.savez(tmp_path / "rows.npz", x=rows["x"], y=rows["y"])
    table = "".join(",".join(map(str, [*row["x"], row["y"]])) + "\n" for row in rows)
    (tmp_path / "rows.csv").write_text(table)
    said = [
        streamer("run", several, tmp_path / name, "--set", "c=0.5,0.5,0.5,0.5").stdout.decode()
        for name in ("rows.npz", "rows.csv")
    ]
    assert said[0] == said[1]
    assert len(said[0].splitlines()) == 9
    assert streamer("run", several, tmp_path / "rows.csv").stdout.decode() != said[0]
    expected = package.load(several).stream({"c": np.full(4, 0.5, np.float32)}).step({"x": rows["x"], "y": rows["y"]})
    cells = [line.split(",") for line in said[0].splitlines()[1:]]
    np.testing.assert_array_equal(np.array([line[1:3] for line in cells], np.float32), expected["z"])
    # of two steps there is one count, with the second
    assert [line[4] for line in cells] == ["", "2", "", "4", "", "6", "", "8"]


def test_columns_of_a_table(plant: Path, expected: np.ndarray) -> None:
    table = "time,c,a,b\n" + "".join(f"t{i},{c},{a},{b}\n" for i, (a, b, c) in enumerate(ROWS.tolist()))
    done = streamer("run", plant, "-", "--columns", "a,b,c", stdin=table.encode())
    lines = list(csv.reader(done.stdout.decode().splitlines()))[1:]
    np.testing.assert_array_equal(np.array([line[1:3] for line in lines], np.float32), expected)


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        (b"1,2\n", (), ("line 1", "2 numbers", "3 of 'x'", "--columns")),
        (b"1,2,3\n1,many,3\n", (), ("line 2", "'many'")),
        (b"[1,2,3]\n[1,2\n", (), ("line 2", "JSON")),
        (b"[[1,2,3,4]]\n", (), ("'x'", "float32")),
        (b'{"y":1}\n', (), ("line 1", "'x'")),
        (b"a,b,c\n1,2,3\n", ("--columns", "a,b,d"), ("'d'", "a, b, c")),
        (b"1,2,3\n", ("--format", "xml"), ("'xml'", "csv")),
        (b"1,2,3\n", ("--set", "mood=1"), ("mood", "none")),
        (b"1,2,3\n", ("--format", "npy"), ("several outputs", ".npz")),
        (b"\xff\xfe1,2,3\n", (), ("line 1", "UTF-8")),
    ],
)
def test_what_can_not_be_run_is_named(
    plant: Path, data: bytes, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    done = streamer("run", plant, "-", *options, stdin=data)
    assert done.returncode == 2
    said = one_line(done.stderr)
    assert [word for word in words if word not in said] == []


def test_a_missing_file_and_a_missing_model(plant: Path, tmp_path: Path) -> None:
    assert "nowhere.csv" in one_line(streamer("run", plant, tmp_path / "nowhere.csv").stderr)
    assert "no model" in one_line(streamer("run", "nobody", "-").stderr)


BAD = {
    "text in a csv": as_csv() + b"1,x,3\n",
    "a short line of a csv": as_csv() + b"1,2\n1,2,3\n",
    "a number too large in a csv": as_csv() + b"1,1e39,3\n1,2,3\n",
    "no json": as_ndjson() + b"[1, 2,\n",
    "a short list": as_ndjson() + b"[1, 2]\n[1, 2, 3]\n",
    "text in a list": as_ndjson() + b'[1, "x", 3]\n',
    "no text": as_csv() + b"\xff\n",
}


@pytest.mark.parametrize("data", list(BAD.values()), ids=list(BAD))
def test_the_rows_before_a_bad_one_are_run(plant: Path, tmp_path: Path, data: bytes) -> None:
    whole = streamer("run", plant, "-", stdin=as_csv())
    (tmp_path / "rows").write_bytes(data)
    for rows, given, out in (
        (tmp_path / "rows", b"", ()),
        ("-", data, ()),
        (tmp_path / "rows", b"", ("-o", "out.csv")),
    ):
        done = streamer("run", plant, rows, *(tmp_path / one if "." in one else one for one in out), stdin=given)
        assert done.returncode == 2
        assert "10" in one_line(done.stderr)
        wrote = (tmp_path / "out.csv").read_bytes() if out else done.stdout
        assert wrote.decode().splitlines() == whole.stdout.decode().splitlines()[: 1 + len(ROWS)]


def test_a_file_of_arrays_holds_the_outputs_before_a_bad_row(plant: Path, tmp_path: Path) -> None:
    assert streamer("run", plant, "-", "-o", tmp_path / "whole.npz", stdin=as_csv()).returncode == 0
    lines = as_csv().splitlines(keepends=True)
    done = streamer("run", plant, "-", "-o", tmp_path / "part.npz", stdin=b"".join([*lines[:7], b"1,x,3\n"]))
    assert done.returncode == 2
    with np.load(tmp_path / "whole.npz") as whole, np.load(tmp_path / "part.npz") as part:
        for name in whole.files:
            np.testing.assert_array_equal(part[name], whole[name][: len(part[name])])
        assert 0 < len(part[whole.files[0]]) < len(whole[whole.files[0]])


def test_a_file_of_arrays_is_not_made_where_the_first_row_is_bad(plant: Path, tmp_path: Path) -> None:
    assert streamer("run", plant, "-", "-o", tmp_path / "none.npz", stdin=b"1,1e39,3\n").returncode == 2
    assert not (tmp_path / "none.npz").exists()


def test_an_array_with_a_bad_row(plant: Path, tmp_path: Path) -> None:
    bad = np.array(ROWS, np.float64)
    bad[7, 1] = 1e39
    np.save(tmp_path / "rows.npy", bad)
    done = streamer("run", plant, tmp_path / "rows.npy")
    assert done.returncode == 2
    assert "row 8: input" in one_line(done.stderr)
    assert len(done.stdout.decode().splitlines()) == 1 + 7
