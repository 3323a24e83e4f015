"""Initialises a larger acoustic model from a smaller trained one, with the same outputs.

Net2Net (Chen et al. 2016, arXiv 1511.05641): new channels and units have random input weights, and zero output weights
to the old ones; new residual layers add zero. Only layer norms are not exact, since they also see the new units, which
are silent at first.

    python -m models.speech.grow small.pt english-lstm -o begin.pt      # a checkpoint's weights in a recipe's shape
    python -m models train english-lstm --warm begin.pt
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from models.speech.acoustic import Acoustic, AcousticConfig
from models.speech.reread import measure_norms, reread
from models.training.checkpoint import load, save

__all__ = ["grow"]

Weights = dict[str, Tensor]
#: Initial bias of a new unit's output gate: nearly closed.
SHUT = -3.0


@torch.no_grad()
def grow(small: Acoustic, config: AcousticConfig) -> Acoustic:
    """A model of ``config`` with the weights of ``small``. Both are of the family "lstm", with the same front, strides
    and kernel; ``config`` is nowhere smaller, and its dilations start with those of ``small``. Raises ``ValueError`` if
    they do not fit."""
    old = small.config
    same = ("family", "sample_rate", "tokens", "bands", "front", "strides", "kernel", "cell")
    if old.family != "lstm" or any(getattr(old, name) != getattr(config, name) for name in same):
        raise ValueError(f"both models must be of the family lstm, with the same {', '.join(same)}")
    if old.channels == old.hidden or config.channels == config.hidden:
        raise ValueError("channels and hidden units must differ in number: there must be a projection between them")
    blocks = len(old.dilations)
    if config.dilations[:blocks] != old.dilations or config.layers < old.layers:
        raise ValueError("the larger model must have the smaller one's layers first, then its own")
    big = Acoustic(config)
    mine, theirs = big.state_dict(), small.state_dict()
    narrow, wide, units, all_units = old.channels, config.channels, old.hidden, config.hidden
    channels, width = torch.arange(narrow), torch.arange(units)

    def copy(*names: str) -> None:
        for name in names:
            mine[name].copy_(theirs[name])

    def part(name: str, rows: Tensor, columns: Tensor | None = None, keep: int = 1) -> None:
        """Copy the old ``rows`` of a matrix; new columns are zero. ``keep``: number of taps, concatenated in the
        columns."""
        if columns is None:
            mine[name][rows] = theirs[name]
            return
        matrix = mine[name].view(len(mine[name]), keep, -1)
        matrix[rows] = 0.0
        matrix[rows[:, None], :, : len(columns)] = theirs[name].view(len(rows), 1, keep, -1)

    def norm(name: str, rows: Tensor) -> None:
        for what in ("weight", "bias", "running_mean", "running_var"):
            part(f"{name}.norm.{what}", rows)

    encoder = "encoder.layers."
    copy("front.layers.norm.mean", "front.layers.norm.std", f"{encoder}halve.conv.mix.weight", "head.bias")
    norm(f"{encoder}halve.norm", torch.arange(old.front))
    part(f"{encoder}quarter.conv.mix.weight", channels, torch.arange(old.front), 2 * old.strides[1] + 1)
    norm(f"{encoder}quarter.norm", channels)
    gates = torch.cat([channels, wide + channels])
    for i in range(len(config.dilations)):
        block = f"{encoder}gated.blocks.{i}."
        mix, bias = mine[f"{block}mix.weight"], mine[f"{block}mix.bias"]
        bias.zero_()
        if i >= blocks:
            mix.zero_()
            continue
        part(f"{block}conv.mix.weight", gates, channels, old.kernel)
        norm(f"{block}norm", gates)
        part(f"{block}mix.weight", channels, channels)
        part(f"{block}mix.bias", channels)
    norm(f"{encoder}gated.norm", channels)
    _recurrent(mine, theirs, f"{encoder}lstm.", (units, all_units), (old.layers, config.layers))
    part(f"{encoder}lstm.enter.weight", width, channels)
    mine[f"{encoder}lstm.enter.weight"][units:] = 0.0
    mine["head.weight"][:, :units] = theirs["head.weight"]
    mine["head.weight"][:, units:] = 0.0
    big.load_state_dict(mine)
    return big.eval()


def _recurrent(mine: Weights, theirs: Weights, stack: str, units: tuple[int, int], layers: tuple[int, int]) -> None:
    few, many = units
    old = torch.arange(few)
    rows = torch.cat([gate * many + old for gate in range(4)])
    mine[f"{stack}enter.bias"].zero_()
    mine[f"{stack}enter.bias"][:few] = theirs[f"{stack}enter.bias"]
    for i in range(layers[1]):
        rnn = f"{stack}layers.{i}.rnn."
        mine[f"{rnn}bias_ih_l0"][3 * many : 4 * many] = SHUT
        if i >= layers[0]:
            continue
        for matrix in ("weight_ih_l0", "weight_hh_l0"):
            mine[rnn + matrix][rows] = 0.0
            mine[rnn + matrix][rows[:, None], old[None]] = theirs[rnn + matrix]
        for bias in ("bias_ih_l0", "bias_hh_l0"):
            mine[rnn + bias][rows] = theirs[rnn + bias]
    for name in [f"norms.{i}" for i in range(layers[0])] + ["leave"]:
        # silent units reduce the variance by their share
        mine[f"{stack}{name}.weight"][:few] = theirs[f"{stack}{name}.weight"] * (few / many) ** 0.5
        mine[f"{stack}{name}.bias"][:few] = theirs[f"{stack}{name}.bias"]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m models.speech.grow", description=__doc__)
    parser.add_argument("small", help="a checkpoint (.pt), or the name of a recipe with a shipped file")
    parser.add_argument("large", help="name of the recipe whose shape the new model has")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    from models.recipes import make
    from streamer.engine.catalogue import resolve

    recipe = make(options.large)
    if options.small.endswith(".pt"):
        small = load(options.small)[0]
    else:
        small = reread(resolve(options.small), make(options.small).config)
        measure_norms(small, [u.pcm for u in recipe.sources[0].utterances[::12]])
    big = grow(small, dataclasses.replace(recipe.config))
    save(options.output, big, recipe.description())
    for name, model in (("small", small), ("grown", big)):
        print(name, {key: round(value, 3) for key, value in recipe.evaluate(model).items()})


if __name__ == "__main__":
    main()
