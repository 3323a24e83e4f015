"""Output of measurements: a table, a picture in ``bench/results/``; with ``--json`` an object as the last line; with
``--keep`` a line in ``bench/kept/``, from which ``python -m bench report`` writes docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
KEPT = Path(__file__).parent / "kept"
PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
#: The marks around a bench's figures in the page.
MARKS = re.compile(r"<!-- begin: python -m bench (\w+) -->\n(.*?)<!-- end -->", re.S)
KEEP = "--keep"

#: The command line of this process if its figures are to be kept; set by :func:`keep`.
_command: list[str] | None = None


class BenchRun(NamedTuple):
    """Figures of one run. ``command``: as typed, without ``--keep``. ``machine``: in words, with its load before the
    run. ``rows``: cells as shown, by ``columns``."""

    date: str
    machine: str
    command: str
    columns: list[str]
    rows: list[list[str]]
    results: Any


def keep(arguments: Sequence[str]) -> list[str]:
    """The arguments of ``python -m bench`` without ``--keep``; if they had it, :func:`finish` stores the figures."""
    global _command
    if KEEP in arguments:
        arguments = [word for word in arguments if word != KEEP]
        _command = [word for word in arguments if word != "--json"]
    return list(arguments)


def finish(
    name: str,
    results: Mapping[str, Any],
    *,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    plot: Callable[[Any], None] | None = None,
    as_json: bool = False,
) -> None:
    """Print the table, draw ``plot(axes)`` into ``bench/results/NAME.png`` and, if asked, store all figures and print
    ``results`` as JSON."""
    cells = [[str(cell) for cell in row] for row in rows]
    table = Table(*columns, title=f"bench {name} ({platform.machine()}, {time.strftime('%Y-%m-%d')})")
    for row in cells:
        table.add_row(*row)
    Console().print(table)
    if plot is not None:
        print(f"picture: {picture(name, plot)}")
    if _command is not None:
        command = shlex.join(["python", "-m", "bench", *_command])
        add(_command[0], BenchRun(time.strftime("%Y-%m-%d"), machine(), command, list(columns), cells, results))
        print(f"kept: {KEPT / _command[0]}.jsonl; python -m bench report writes {PAGE.name}")
    if as_json:
        print(json.dumps(results))


def picture(name: str, plot: Callable[[Any], None]) -> Path:
    """``bench/results/NAME.png``, drawn by ``plot``."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    RESULTS.mkdir(exist_ok=True)
    figure, axes = pyplot.subplots(figsize=(9, 5))
    plot(axes)
    axes.set_title(name)
    figure.tight_layout()
    path = RESULTS / f"{name}.png"
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return path


# -- stored figures ----------------------------------------------------------------------------------------------------


def machine() -> str:
    """The processor, its cores, and the mean number of runnable threads in the last 15 minutes."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text("utf-8"), re.M)
    except OSError:
        found = None
    name = found[1].strip() if found else platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores, load average {os.getloadavg()[2]:.1f}"


def add(name: str, kept: BenchRun, folder: Path | None = None) -> None:
    """Append a line to ``NAME.jsonl``, and remove an older line of the same command."""
    path = (folder or KEPT) / f"{name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    others = [one for one in read(path) if one.command != kept.command]
    lines = [json.dumps(one._asdict(), ensure_ascii=False) + "\n" for one in [*others, kept]]
    path.write_text("".join(lines), "utf-8")


def read(path: Path) -> list[BenchRun]:
    """The stored runs in order; none without a file."""
    if not path.exists():
        return []
    return [BenchRun(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def cell(text: str) -> str:
        return " ".join(text.split("\n")).replace("|", "\\|")  # a line break ends a table's row

    lines = [list(columns), ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines) + "\n"


def section(kept: Sequence[BenchRun]) -> str:
    """The text between the marks of one bench; empty without stored figures."""
    return "\n".join(
        f"`{one.command}` ({one.date}; {one.machine}):\n\n{markdown(one.columns, one.rows)}" for one in kept
    )


def written(page: str, folder: Path | None = None) -> str:
    """``page`` with the stored figures between its marks. Raises ``ValueError`` for figures without marks."""
    folder = folder or KEPT
    marked = {name for name, _ in MARKS.findall(page)}
    lost = sorted({path.stem for path in folder.glob("*.jsonl")} - marked)
    if lost:
        raise ValueError(f"the page has no <!-- begin: python -m bench {lost[0]} --> for stored figures")

    def fill(match: re.Match[str]) -> str:
        figures = section(read(folder / f"{match[1]}.jsonl"))
        return f"<!-- begin: python -m bench {match[1]} -->\n{figures}<!-- end -->"

    return MARKS.sub(fill, page)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench report", description="Write the kept figures (NAME --keep) into docs/benchmarks.md."
    )
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--kept", type=Path, default=KEPT, help="folder of the figures")
    given = parser.parse_args(argv)
    page = given.page.read_text("utf-8")
    given.page.write_text(written(page, given.kept), "utf-8")
    print(f"written: {given.page}")
    return 0
