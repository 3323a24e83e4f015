"""The judge with this build's own runtime and tasks: ``streamer check`` and everything that writes a file."""

from __future__ import annotations

from pathlib import Path

from streamer.contract.judge import Verdict, judge
from streamer.engine.model import Model
from streamer.tasks import create

__all__ = ["judge_file"]


def judge_file(path: str | Path, *, seed: int = 0, long_chunks: int = 400) -> Verdict:
    """Every check of :func:`streamer.contract.judge.judge` on one file; a bad one gives a failed check."""
    return judge(path, Model.load, create, seed=seed, long_chunks=long_chunks)
