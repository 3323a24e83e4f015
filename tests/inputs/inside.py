"""Cases of ``streamer forecast`` inside the test's process, with one model that is loaded once: a table of a hundred
commands would be as many processes."""

from __future__ import annotations

import functools
import shlex
from pathlib import Path

import pytest

from streamer.cli import main
from streamer.engine.catalogue import resolve
from streamer.sensors import open as opened
from tests.inputs.cases import Case, Result

__all__ = ["MODEL", "forecast"]

MODEL = "forecast-online"
COUNT = "| wc -l"
_load = opened.load_forecaster  # which the cases put something else in the place of


@functools.cache
def _loaded() -> opened.Loaded:
    return _load(resolve(MODEL))


def forecast(case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Result:
    """``case.command``: of ``streamer forecast``; behind it may stand ``| wc -l``."""
    case.make(folder)
    words = shlex.split(case.command.removesuffix(COUNT))
    assert words[:2] == ["streamer", "forecast"]
    monkeypatch.chdir(folder)
    monkeypatch.setattr(opened, "load_forecaster", lambda path: _loaded())
    monkeypatch.setattr("sys.argv", [*words[:2], "--model", MODEL, *words[2:]])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    found = str(len(out.splitlines())) if case.command.endswith(COUNT) else out
    return Result(int(ended.value.code or 0), found, err)
