"""Checkpoints: files with a model's weights, configuration, tokens and provenance. ``models.load`` reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from models.forecast.multivariate import Multivariate, MultivariateConfig
from models.forecast.online import Online, OnlineConfig
from models.speech.acoustic import Acoustic, AcousticConfig
from models.zoo import ARCHITECTURES, find

FORMAT = 1
#: Kinds of checkpoints: the classes of module and configuration.
KINDS: dict[str, tuple[Any, Any]] = {
    "acoustic": (Acoustic, AcousticConfig),
    "online": (Online, OnlineConfig),
    "multivariate": (Multivariate, MultivariateConfig),
}


def save(path: Path, model: Any, info: dict[str, Any]) -> None:
    """Write the file atomically: readers see the old one or the new one. ``model``: of :data:`KINDS`, or of the zoo.
    Raises ``TypeError`` for others."""
    weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    kind = _kind(model)
    document = {"format": FORMAT, "kind": kind, "config": model.config.to_dict(), "weights": weights, "info": info}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".tmp")
    torch.save(document, partial)
    partial.replace(path)


def _kind(model: Any) -> str:
    zoo = {where.rpartition(":")[0].replace(":", "."): name for name, where in ARCHITECTURES.items()}
    mine = zoo.get(f"{type(model).__module__}.{type(model).__qualname__}")
    found = [mine] if mine else [name for name, (module, _) in KINDS.items() if isinstance(model, module)]
    if not found:  # next() would raise StopIteration, which Lightning takes for the end of the training
        raise TypeError(f"{type(model).__module__}.{type(model).__qualname__}: not in KINDS, nor in the zoo")
    return found[0]


def load(path: str | Path) -> tuple[Any, dict[str, Any]]:
    """(module in evaluation mode, info). The file says which class: of :data:`KINDS`, or an architecture of the zoo.

    ``info``: name, task, family, sample_rate, hop, tokens, lexicon, data, licence, scores, and fields of the recipe.
    Raises ``ValueError`` for a file that is not a checkpoint.
    """
    document = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(
            f"{path} is not a checkpoint of this project (format {FORMAT}): train one with python -m models"
        )
    kind = document.get("kind", "acoustic")
    module, config = KINDS[kind] if kind in KINDS else find(ARCHITECTURES[kind])
    model = module(config.from_dict(document["config"]))
    model.load_state_dict(document["weights"])
    return model.eval(), document["info"]


def warm_start(model: Acoustic, path: Path) -> int:
    """Copy every tensor of a checkpoint whose name and shape match one of the model's; returns their number."""
    other, _ = load(path)
    mine, theirs = model.state_dict(), other.state_dict()
    fitting = {name: value for name, value in theirs.items() if name in mine and mine[name].shape == value.shape}
    model.load_state_dict(fitting, strict=False)
    return len(fitting)
