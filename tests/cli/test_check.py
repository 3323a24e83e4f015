"""``streamer check`` ends in one screen, however many checks fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import streamer
from tests.cli.terminal import terminal
from tests.contract.test_judge import BREAKERS, write


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every check of one law fails."""
    return write(tmp_path_factory.mktemp("broken") / "broken.onnx", BREAKERS["batch mean"][0])


@pytest.mark.parametrize(("columns", "lines"), [(40, 16), (80, 24), (120, 40)])
def test_one_screen_says_which_law_fails_and_how(broken: Path, columns: int, lines: int) -> None:
    with terminal("check", str(broken), "--chunks", "30", columns=columns, lines=lines) as seen:
        assert seen.end() == 1
        assert seen.lines[0].startswith("law ")  # nothing has scrolled away
        assert "company    FAILS  10 of 10" in seen.text
        assert "FAILS company, batch of 2" in seen.text
        assert "chunk      ok" in seen.text
        assert "broken.onnx: refused, 10 of" in " ".join(seen.text.split())
        assert ("more that fail" in seen.text) == (lines < 24)


def test_a_pipe_gets_whole_lines(broken: Path) -> None:
    done = streamer("check", str(broken), "--chunks", "30")
    lines = done.stdout.decode().splitlines()
    failing = [line for line in lines if line.startswith("FAILS")]
    said = json.loads(streamer("check", "--json", str(broken), "--chunks", "30").stdout)
    wanted = [finding for finding in said["findings"] if not finding["ok"]]
    assert len(failing) == len(wanted)
    assert all(finding["detail"] in line for finding, line in zip(wanted, failing, strict=True))
    assert lines[-1] == "broken.onnx: refused, 10 of 20 checks fail (seed 0); --all shows every check"


@pytest.mark.long
def test_all_of_them_on_request(toy: Path) -> None:
    few = streamer("check", str(toy), "--chunks", "30").stdout.decode()
    every = streamer("check", "--all", str(toy), "--chunks", "30").stdout.decode()
    assert "beside NaN" in every
    assert "beside NaN" not in few
    assert len(few.splitlines()) < 24 < len(every.splitlines())
    assert "--all" not in every
