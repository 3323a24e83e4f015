"""``streamer forecast --follow``: a file that grows, is replaced or becomes shorter, on terminals and in pipes."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli.command import ROOT, STREAMER, environment, one_line, streamer
from tests.cli.terminal import terminal

HEAD, *LINES = (ROOT / "samples" / "sensor.csv").read_text().splitlines()


def text(first: int, last: int, head: bool = False) -> str:
    return "".join(f"{line}\n" for line in [HEAD] * head + LINES[first:last])


@pytest.mark.long
@pytest.mark.parametrize(("columns", "lines"), [(40, 10), (140, 30)])
def test_the_table_grows_with_the_file(tmp_path: Path, columns: int, lines: int) -> None:
    file = tmp_path / "log.csv"
    file.write_text(text(0, 40, head=True))
    with terminal("forecast", "--follow", str(file), columns=columns, lines=lines) as seen:
        seen.shows("80 readings; ")
        with file.open("a") as out:
            out.write(text(40, 50))
        seen.shows("100 readings; ")
        other = tmp_path / "other.csv"
        other.write_text(text(50, 60))
        other.rename(file)  # as logs are rotated
        seen.shows("120 readings; ")
        file.write_text(text(60, 61))  # shorter than it was
        seen.shows("122 readings; ")
        assert "temperature" in seen.text
        assert ("readings   missing" in seen.text) == (columns > 100)
        assert sum("122 readings" in line for line in seen.lines) == 1
        seen.type("\x03")
        assert seen.end() == 130
    assert b"Traceback" not in seen.raw
    assert "temperature" in seen.text  # the table stays
    assert seen.raw.rstrip().endswith(b"without a reading") or b"\x1b[?25h" in seen.raw


def test_a_pipe_gets_each_reading_as_it_comes(tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    file.write_text(text(0, 2, head=True) + "2026-03-02 02:00,15")  # a line that is still being written
    command = [*STREAMER, "forecast", "--follow", "--json", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        try:
            said = [json.loads(process.stdout.readline()) for _ in range(4)]
            with file.open("a") as out:
                out.write(".5,80\n")
            said += [json.loads(process.stdout.readline()) for _ in range(2)]
        finally:
            process.send_signal(signal.SIGINT)
        assert [each["value"] for each in said] == [15.14, 83.1, 15.77, 78.8, 15.5, 80]
        assert process.stdout.read() == b""
        assert process.wait(60) == 130


@pytest.mark.long
def test_what_can_not_be_followed_is_said(tmp_path: Path) -> None:
    packed = tmp_path / "log.csv.gz"
    packed.write_bytes(gzip.compress(text(0, 9, head=True).encode()))
    for name, why in ((packed, "unpack it"), ("-", "a pipe is followed anyway"), (tmp_path / "none", "no such file")):
        done = streamer("forecast", "--follow", name)
        assert why in one_line(done.stderr)
        assert done.returncode == 2
