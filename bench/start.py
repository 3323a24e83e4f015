"""Start time, from exec until ``/readyz`` is 200 (models are loaded and warm). Cold: without cached batch sizes."""

from __future__ import annotations

import tempfile
import time
from typing import Any

from bench import setup
from bench.report import finish


def main(argv: list[str]) -> None:
    parser = setup.parser("start", __doc__)
    parser.add_argument("--times", type=int, default=5)
    arguments = parser.parse_args(argv)
    found: dict[str, list[tuple[float, float]]] = {"cold": [], "warm": []}
    with setup.model_path(arguments.model) as path:
        for _ in range(arguments.times):
            with tempfile.TemporaryDirectory() as folder:
                for kind in ("cold", "warm"):
                    with setup.serving(path, STREAMER_STATE_DIRECTORY=folder) as served:
                        found[kind].append((served.ready_seconds, served.cpu_seconds()))
                    time.sleep(0.1)
        name = path.stem
    results: dict[str, Any] = {"model": name}
    rows = []
    for kind, times in found.items():
        wall, cpu = sorted(t[0] for t in times), sorted(t[1] for t in times)
        median = {"seconds": wall[len(wall) // 2], "best_seconds": wall[0], "cpu_seconds": cpu[len(cpu) // 2]}
        results[kind] = median
        rows.append((kind, *(f"{value:.2f}" for value in median.values())))

    def plot(axes: Any) -> None:
        axes.boxplot([[t[0] for t in times] for times in found.values()], tick_labels=list(found))
        axes.set_ylabel("exec to ready, s")
        axes.set_ylim(bottom=0)

    columns = ("start", "median s", "best s", "CPU s")
    finish("start", results, columns=columns, rows=rows, plot=plot, as_json=arguments.json)
