"""Tunes the daemon's decoder by coordinate descent: the mean error rate of the development sets that also choose the
recipe's checkpoints.

    python -m models.speech.tune runs/english/best.pt --lexicon dev/lexicon.txt --lm dev/lm.bin -o options.json

The language model must not be trained on the development speakers' transcripts (``python -m models.speech.lm --held-out
...``), or its weight gets too high. The result is for ``python -m export --options``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
from models.recipes import make
from models.speech.decoding import score, transcriber
from models.training.score import log_probs
from streamer.tasks.transcribe.task import decode_all

#: The start of the search, and the values of each setting, in the order in which settings are tried.
START: dict[str, float] = {"lm_weight": 0.8, "blank_penalty": 1.0, "word_score": 0.0}
GRID: dict[str, tuple[float, ...]] = {
    "lm_weight": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.4, 1.6, 1.8),
    "blank_penalty": (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0),
    "word_score": (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0),
}


def descend(
    error: Callable[[dict[str, float]], float],
    start: dict[str, float],
    grid: dict[str, tuple[float, ...]],
    rounds: int = 3,
) -> tuple[dict[str, float], float]:
    """The best settings found, and their error. Coordinate descent: each setting in turn moves to neighbours in
    ``grid`` while the error falls, until a round changes nothing, or for ``rounds``."""
    best, least = dict(start), error(start)
    for _ in range(rounds):
        before = dict(best)
        for name, values in grid.items():
            for direction in (1, -1):
                while True:
                    beyond = [v for v in values if (v - best[name]) * direction > 0]
                    if not beyond:
                        break
                    tried = best | {name: min(beyond, key=lambda v: abs(v - best[name]))}
                    found = error(tried)
                    if found >= least:
                        break
                    best, least = tried, found
        if best == before:
            break
    return best, least


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m models.speech.tune", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--lexicon", type=Path, required=True)
    parser.add_argument("--lm", type=Path)
    parser.add_argument("--beam", type=int, default=64)
    parser.add_argument("--merge", choices=("history", "state"), default="history")
    parser.add_argument("-o", "--out", type=Path, help="options.json for the exporter")
    given = parser.parse_args(arguments)

    model, info = models.load(given.checkpoint)
    recipe = make(info["name"])
    sets = [recipe.dev[name] for name in recipe.chosen_by or tuple(recipe.dev)[:1]]
    rows = [log_probs(model, [u.pcm for u in dev]) for dev in sets]
    lm = given.lm.read_bytes() if given.lm else None
    task = transcriber(info, given.lexicon.read_bytes(), lm, {"kind": "beam"})

    def options(settings: dict[str, float]) -> dict[str, Any]:
        return {"kind": "beam", "beam": given.beam, "merge": given.merge, **settings}

    def error(settings: dict[str, float]) -> float:
        decoder = {"decoder": options(settings)}
        found = [score(dev, decode_all(task, part, decoder)) for dev, part in zip(sets, rows, strict=True)]
        print(f"{'; '.join(map(str, found))}  {settings}", flush=True)
        return sum(one.rate for one in found) / len(found)

    best, least = descend(error, START, GRID)
    print(f"best: {100 * least:.1f} %  {json.dumps(options(best))}")
    if given.out:
        given.out.write_text(json.dumps({"decoder": options(best)}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
