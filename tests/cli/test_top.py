"""``streamer top`` of a real daemon, in real terminals and in pipes."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from websockets.sync.client import ClientConnection, connect

from tests.cli.command import STREAMER, environment, one_line, streamer
from tests.cli.serving import serving, until_ready
from tests.cli.terminal import terminal
from tests.toys import speech

#: Of which rich makes a colour; bold and dim are none.
COLOURED = re.compile(rb"\x1b\[(?:[0-9;]*;)?(?:3[0-9]|4[0-9]|9[0-9])[0-9;]*m")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, toy: Path) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("top"), toy) as url:
        until_ready(url)
        yield url.replace("ws://", "http://")


@pytest.fixture(scope="module")
def talkers(daemon: str) -> Iterator[list[ClientConnection]]:
    """Three streams with keys; one has a long name, one a name of wide characters."""
    names = ("a", "the-name-of-a-stream-that-is-longer-than-any-narrow-terminal", "会議の録音")
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(connect(f"{daemon.replace('http', 'ws')}/v1/stream")) for _ in names]
        for name, one in zip(names, made, strict=True):
            one.send(json.dumps({"type": "start", "key": name}))
            assert json.loads(one.recv())["type"] == "ready"
            one.send(speech("AB", 8000).tobytes())
            one.send(json.dumps({"type": "marker", "id": "m"}))
            while json.loads(one.recv())["type"] != "marker":
                pass
        yield made


@pytest.mark.long
def test_once_as_json(daemon: str, talkers: list[ClientConnection]) -> None:
    done = streamer("top", "--url", daemon, "--once", "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    (line,) = done.stdout.decode().splitlines()
    said = json.loads(line)
    assert (said["ready"], said["says"]) == (True, "ready")
    assert said["models"]["toy"]["active"] == len(talkers)
    assert said["models"]["toy"]["lag"] > 0
    assert said["models"]["toy"]["rows"] is None  # one look has no rates
    assert {one["stream"]: one["position"] for one in said["sessions"]}["a"] == len(speech("AB", 8000))
    assert said["refused"] == {}


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_once_in_a_pipe_fits_and_has_no_colour(daemon: str, talkers: list[ClientConnection], columns: int) -> None:
    command = [*STREAMER, "top", "--url", daemon, "--once"]
    env = environment({"COLUMNS": str(columns), "PYTHONIOENCODING": "utf-8"})
    done = subprocess.run(command, capture_output=True, env=env, timeout=60, check=True)
    assert b"\x1b" not in done.stdout
    lines = done.stdout.decode().splitlines()
    assert max(map(cell_len, lines)) <= columns
    rows = [line for line in lines if "attached" in line]
    assert len(rows) == len(talkers)
    assert any(line.startswith("会議の録音") for line in rows)
    assert any(line.startswith("the-name-of-a-") for line in rows)
    assert re.search(r"^toy +3 ", done.stdout.decode(), re.M)
    assert ("position" in done.stdout.decode()) == (columns >= 80)


def test_a_pipe_gets_one_look_after_the_other(daemon: str, talkers: list[ClientConnection]) -> None:
    command = [*STREAMER, "top", "--url", daemon, "--json", "--every", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        try:
            first, second = (json.loads(process.stdout.readline()) for _ in range(2))
        finally:
            process.send_signal(signal.SIGINT)
        assert (first["models"]["toy"]["rows"], second["models"]["toy"]["rows"]) == (None, 0.0)
        assert process.wait(60) == 130


def test_a_reader_that_goes_away_is_no_error(daemon: str) -> None:
    command = f"{' '.join(map(repr, STREAMER))} top --url {daemon} --every 0.1 | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, env=environment(), timeout=60)
    assert done.stdout.startswith(b"streamer ")
    assert done.stderr == b""


@pytest.mark.parametrize(("columns", "lines"), [(40, 12), (40, 24), (80, 24), (140, 40)])
def test_on_a_terminal_it_fits_and_ctrl_c_puts_everything_back(
    daemon: str, talkers: list[ClientConnection], columns: int, lines: int
) -> None:
    with terminal("top", "--url", daemon, "--every", "0.1", columns=columns, lines=lines) as seen:
        seen.shows("readings/s")
        drawn = len(seen.raw)
        seen.until(lambda: len(seen.raw) > drawn + 2000)  # several looks later it stands where it stood
        assert seen.lines[0].startswith("streamer ")
        assert "load" in seen.text
        assert "attached" in seen.text
        assert sum(line.startswith("streamer ") for line in seen.lines) == 1
        assert COLOURED.search(seen.raw)
        seen.type("\x03")
        assert seen.end() == 130
        assert b"Traceback" not in seen.raw
        assert seen.raw.endswith(b"\x1b[?25h\x1b[?1049l")  # the cursor is back, and the screen from before


def test_another_width_while_it_runs(daemon: str, talkers: list[ClientConnection]) -> None:
    with terminal("top", "--url", daemon, "--every", "0.1", columns=40) as seen:
        seen.shows("readings/s")
        assert "position" not in seen.text
        seen.resize(120, 24)
        seen.shows("position")


@pytest.mark.parametrize("more", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colour_on_request(daemon: str, talkers: list[ClientConnection], more: dict[str, str]) -> None:
    with terminal("top", "--url", daemon, "--every", "0.1", **more) as seen:
        seen.shows("attached")
        seen.type("\x03")
        assert seen.end() == 130
    assert not COLOURED.search(seen.raw)


def test_a_daemon_that_is_not_there() -> None:
    done = streamer("top", "--url", "http://127.0.0.1:9")
    assert "start one with streamer serve" in one_line(done.stderr)
    assert (done.returncode, done.stdout) == (1, b"")
    assert "http://HOST:PORT" in one_line(streamer("top", "--url", "nonsense").stderr)


@pytest.mark.long
def test_a_daemon_that_goes_away_and_comes_back(tmp_path: Path, toy: Path) -> None:
    with serving(tmp_path, toy) as url:
        port = int(url.rpartition(":")[2])
        seen = terminal("top", "--url", url.replace("ws", "http"), "--every", "0.1", columns=120)
        shown = seen.__enter__()
        shown.shows("no streams yet")
    try:
        shown.shows("can't be reached")
        assert "trying again" in shown.text
        with serving(tmp_path, toy, port=port):
            shown.shows("no streams yet")
            assert "can't be reached" not in shown.text
    finally:
        seen.__exit__(None, None, None)


@pytest.mark.long
def test_with_tokens(tmp_path: Path, toy: Path) -> None:
    env = environment({"STREAMER_STATE_DIRECTORY": str(tmp_path)})

    def token(scope: str) -> str:
        command = [*STREAMER, "token", "add", scope, "--scope", scope]
        return subprocess.run(command, capture_output=True, env=env, check=True, timeout=60).stdout.decode().strip()

    def look(secret: str | None) -> subprocess.CompletedProcess[bytes]:
        command = [*STREAMER, "top", "--url", url, "--once"]
        more: dict[str, Any] = {} if secret is None else {"STREAMER_TOKEN": secret}
        return subprocess.run(command, capture_output=True, env=environment(more), timeout=60)

    tokens = {scope: token(scope) for scope in ("read", "stream", "admin")}
    with serving(tmp_path, toy) as url:
        until_ready(url)
        for secret in (None, tokens["stream"]):
            done = look(secret)
            assert done.returncode == 1
            assert "--token or STREAMER_TOKEN" in one_line(done.stderr)
        assert "single streams are not shown" in look(tokens["read"]).stdout.decode()
        assert "no streams yet" in look(tokens["admin"]).stdout.decode()


def test_refusals_are_told(daemon: str, talkers: list[ClientConnection]) -> None:
    with connect(f"{daemon.replace('http', 'ws')}/v1/stream") as one:
        one.send(json.dumps({"type": "start", "model": "nothing"}))
        assert json.loads(one.recv())["code"] == "unknown_model"
    said = json.loads(streamer("top", "--url", daemon, "--once", "--json").stdout)
    assert said["refused"] == {"refusals unknown_model": 1}
    assert "refused: refusals unknown_model 1" in streamer("top", "--url", daemon, "--once").stdout.decode()
