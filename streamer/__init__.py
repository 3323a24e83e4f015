"""streamer: stateful streaming inference. A torch-free daemon that carries hidden states across chunks."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from streamer.streams.local import LocalModel

try:
    __version__ = version("streamer")
except PackageNotFoundError:  # run from a checkout that was not installed
    __version__ = "0.0.0"

__all__ = ["__version__", "load"]


def load(name_or_path: str | Path, *, threads: int = 1) -> LocalModel:
    """Load a model into this process: ``streamer.load("plant.onnx").stream().step(rows)``
    (:mod:`streamer.streams.local`)."""
    from streamer.streams.local import load as load_local  # imports the runtime only where it is needed

    return load_local(name_or_path, threads=threads)
