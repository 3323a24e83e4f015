"""The judge with this build's runtime and tasks, for ``streamer check`` and for everything that writes a model file."""

from __future__ import annotations

from pathlib import Path

from streamer.contract.judge import Verdict, judge
from streamer.engine.model import Model
from streamer.tasks import create

__all__ = ["judge_file"]


def judge_file(path: str | Path, *, seed: int = 0, long_chunks: int = 400) -> Verdict:
    """All checks of :func:`streamer.contract.judge.judge` on one file; a bad file gives failed checks, no exception."""
    return judge(path, Model.load, create, seed=seed, long_chunks=long_chunks)
