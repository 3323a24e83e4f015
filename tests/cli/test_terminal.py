"""What a terminal shows: partials redrawn in place, finals left standing. The terminal is a real one (a pty)."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest
from rich.console import Console, Group

from streamer.commands.screen import Screen, clock, meter
from tests.cli.command import STREAMER, environment

#: Escape sequences that move or erase: what redrawing in place is made of.
REDRAW = re.compile(rb"\x1b\[\d*[AK]")


def _on_a_terminal(*arguments: str | Path) -> tuple[bytes, int]:
    """Everything the command writes to its terminal, and its exit code."""
    main, side = pty.openpty()
    command = [*STREAMER, *map(str, arguments)]
    env = environment({"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"})
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=side, stderr=side, env=env)
    os.close(side)
    seen = b""
    try:
        while data := os.read(main, 4096):
            seen += data
    except OSError:  # Linux: the other side is closed
        pass
    finally:
        os.close(main)
    return seen, process.wait(60)


def _screen(seen: bytes) -> list[str]:
    """The lines that are left in the end: what a terminal makes of text, line ends, cursor up and erase line."""
    rows, y, x = [""], 0, 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", seen.decode()):
        if part == "\r":
            x = 0
        elif part == "\n":
            y += 1
            rows += [""] * (y + 1 - len(rows))
        elif part[0] != "\x1b":
            rows[y] = rows[y][:x].ljust(x) + part + rows[y][x + len(part) :]
            x += len(part)
        elif part[-1] == "A":
            y = max(0, y - int(part[2:-1] or 1))
        elif part[-1] == "K":
            rows[y] = rows[y][:x] if part[2:-1] in ("", "0") else ""
    return [row.rstrip() for row in rows if row.strip()]


def test_text_grows_and_the_finals_stay(toy: Path, recording: Path) -> None:
    seen, code = _on_a_terminal("transcribe", "--text", "spoken", "--model", toy, recording)
    assert code == 0
    assert REDRAW.search(seen)
    assert b"x real time" in seen
    assert _screen(seen) == ["AB", "BBA"]


def test_json_on_a_terminal_is_json_alone(toy: Path, recording: Path) -> None:
    seen, code = _on_a_terminal("transcribe", "--json", "--model", toy, recording)
    assert code == 0
    assert b"\x1b" not in seen
    assert all(line.startswith(b"{") for line in seen.splitlines())


def test_raw_pcm_is_not_typed(toy: Path) -> None:
    main, side = pty.openpty()
    command = [*STREAMER, "transcribe", "-", "--model", str(toy)]
    done = subprocess.run(command, stdin=side, capture_output=True, env=environment(), timeout=60)
    os.close(main)
    os.close(side)
    assert b"standard input is a terminal" in done.stderr
    assert done.returncode == 2


def test_level_meter() -> None:
    bars = [meter(peak).plain.count("█") for peak in (0.0, 0.0005, 0.01, 0.1, 0.5, 1.0)]
    assert bars == sorted(bars)
    assert (bars[0], bars[1], bars[-1]) == (0, 0, 24)
    assert "silence" in meter(0.0).plain
    assert "-20 dB" in meter(0.1).plain
    assert any("red" in str(span.style) for span in meter(1.0).spans)
    assert not any("red" in str(span.style) for span in meter(0.5).spans)


def test_clock() -> None:
    assert [clock(s) for s in (0, 59.9, 61, 3723)] == ["0:00", "0:59", "1:01", "1:02:03"]


@pytest.mark.parametrize("columns", [20, 40, 100])
def test_a_status_is_one_line_however_narrow_the_window_is(columns: int) -> None:
    line = meter(0.1, max(4, columns // 3))
    line.append("  1:02:03  a microphone with a very long name, as they have")
    console = Console(width=columns, file=io.StringIO(), legacy_windows=False)
    console.print(Group(Screen.one_line(line)))  # as the screen draws it
    (shown,) = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(shown) <= columns
    assert shown.endswith("…") or columns == 100


def test_the_meter_without_unicode() -> None:
    assert set(meter(0.1, 10, ascii_only=True).plain[:10]) == {"#", "."}
