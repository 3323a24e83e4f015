"""Figures that are kept, and the page that is written from them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as command
from bench import report
from bench.report import BenchRun

MARKED = (
    "before\n<!-- begin: python -m bench toy -->\nold\n<!-- end -->\n"
    "between\n<!-- begin: python -m bench x -->\n<!-- end -->\n"
)
COMMAND = "python -m bench toy --seconds 1"
RUN = BenchRun("2026-01-02", "a machine", COMMAND, ["what", "how | much"], [["a|b", "1.5\n(1 to 2)"]], {"x": 1})


def test_the_page_is_what_is_kept() -> None:
    page = report.PAGE.read_text("utf-8")
    assert report.written(page) == page


def test_every_bench_has_its_place() -> None:
    marked = [name for name, _ in report.MARKS.findall(report.PAGE.read_text("utf-8"))]
    assert sorted(marked) == sorted(set(command.NAMES) - {"report"})


def test_figures_stand_under_the_command_that_printed_them(tmp_path: Path) -> None:
    report.add("toy", RUN, tmp_path)
    assert report.read(tmp_path / "toy.jsonl") == [RUN]
    text = report.written(MARKED, tmp_path)
    assert "old" not in text
    told = "`python -m bench toy --seconds 1` (2026-01-02; a machine):\n\n| what | how \\| much |\n| --- | --- |\n"
    assert f"{told}| a\\|b | 1.5 (1 to 2) |\n<!-- end -->\nbetween" in text
    assert report.written(text, tmp_path) == text


def test_a_newer_run_of_the_same_command_replaces_the_older(tmp_path: Path) -> None:
    other = RUN._replace(command="python -m bench toy")
    newer = RUN._replace(date="2026-02-03", rows=[["c", "2"]])
    for run in (RUN, other, newer):
        report.add("toy", run, tmp_path)
    assert report.read(tmp_path / "toy.jsonl") == [other, newer]


def test_figures_without_a_place_are_no_secret(tmp_path: Path) -> None:
    report.add("lost", RUN, tmp_path)
    with pytest.raises(ValueError, match="no <!-- begin: python -m bench lost -->"):
        report.written(MARKED, tmp_path)


@pytest.mark.parametrize("wanted", [True, False])
def test_a_run_is_kept_where_it_is_asked_for(wanted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(report, "_command", None)
    given = ["toy", "--seconds", "1", "--json", *(["--keep"] if wanted else [])]
    assert report.keep(given) == ["toy", "--seconds", "1", "--json"]
    report.finish("toy", {"x": 1}, columns=("a", "b"), rows=[("one", 2)])
    found = report.read(tmp_path / "kept" / "toy.jsonl")
    assert [(one.command, one.rows, one.results) for one in found] == (
        [("python -m bench toy --seconds 1", [["one", "2"]], {"x": 1})] if wanted else []
    )
    assert all(one.date and "cores, load average" in one.machine for one in found)


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    page: Any = tmp_path / "page.md"
    page.write_text(MARKED, "utf-8")
    report.add("toy", RUN, tmp_path / "kept")
    line = [sys.executable, "-m", "bench", "report", "--page", page, "--kept", tmp_path / "kept"]
    subprocess.run(line, check=True, timeout=60, cwd=report.PAGE.parents[1], stdout=subprocess.DEVNULL)
    assert page.read_text("utf-8") == report.written(MARKED, tmp_path / "kept")
    assert json.loads((tmp_path / "kept" / "toy.jsonl").read_text("utf-8"))["results"] == {"x": 1}
