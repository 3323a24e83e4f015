"""A trained model on disk: weights, shape, tokens and where it comes from. ``models.load`` reads it back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from models.acoustic import Acoustic, AcousticConfig
from models.online import Online, OnlineConfig

FORMAT = 1
#: What a checkpoint may hold: module and configuration.
KINDS: dict[str, tuple[Any, Any]] = {"acoustic": (Acoustic, AcousticConfig), "online": (Online, OnlineConfig)}


def save(path: Path, model: Acoustic | Online, info: dict[str, Any]) -> None:
    """Write atomically: whoever looks finds the old file or the new one."""
    weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    kind = next(name for name, (module, _) in KINDS.items() if isinstance(model, module))
    document = {"format": FORMAT, "kind": kind, "config": model.config.to_dict(), "weights": weights, "info": info}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".tmp")
    torch.save(document, partial)
    partial.replace(path)


def load(path: str | Path) -> tuple[Any, dict[str, Any]]:
    """(module in evaluation mode, info): an :class:`Acoustic` or :class:`Online`, as the file says.

    ``info``: name, task, family, sample_rate, hop, tokens, lexicon, data, licence, scores, and what the recipe adds.
    """
    document = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"{path} is no checkpoint of this project (format {FORMAT}): train one with python -m models")
    module, config = KINDS[document.get("kind", "acoustic")]
    model = module(config.from_dict(document["config"]))
    model.load_state_dict(document["weights"])
    return model.eval(), document["info"]


def warm_start(model: Acoustic, path: Path) -> int:
    """Copy every tensor of a checkpoint that has the name and shape of one of the model's; how many there were."""
    other, _ = load(path)
    mine, theirs = model.state_dict(), other.state_dict()
    fitting = {name: value for name, value in theirs.items() if name in mine and mine[name].shape == value.shape}
    model.load_state_dict(fitting, strict=False)
    return len(fitting)
