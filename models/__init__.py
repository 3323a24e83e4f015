"""Acoustic models in PyTorch: streaming layers, recipes and training. ``load`` reads a trained checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from models.speech.acoustic import Acoustic

__all__ = ["load"]


def load(path: str | Path) -> tuple[Acoustic, dict[str, Any]]:
    """(module, info) of a checkpoint: see :func:`models.training.checkpoint.load`."""
    from models.training.checkpoint import load as read  # here, so that torch is imported only when needed

    return read(path)
