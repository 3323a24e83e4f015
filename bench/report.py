"""Output of measurements: a table, a picture in ``bench/results/``, with ``--json`` an object as the last line."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


def finish(
    name: str,
    results: Mapping[str, Any],
    *,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    plot: Callable[[Any], None] | None = None,
    as_json: bool = False,
) -> None:
    """Print the table, draw ``plot(axes)`` into ``bench/results/NAME.png`` and, if asked, print ``results`` as JSON."""
    table = Table(*columns, title=f"bench {name} ({platform.machine()}, {time.strftime('%Y-%m-%d')})")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console().print(table)
    if plot is not None:
        print(f"picture: {picture(name, plot)}")
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
