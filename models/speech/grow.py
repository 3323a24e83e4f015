"""A larger acoustic model that begins as a smaller trained one, and hears what that hears.

Net2Net (Chen et al. 2016, arXiv 1511.05641): new channels and units get random weights coming in and zeros going out
to the old ones, new residual layers add zero. What is not exactly kept are the layer norms, which now also see the new
units, that are silent at first.

    python -m models.speech.grow english-small english -o grown.pt       # a shipped file's weights in english's shape
    python -m models train english --warm grown.pt
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.layers.conv import ChannelNorm
from models.speech.acoustic import Acoustic, AcousticConfig, whole
from models.speech.data import Pcm
from models.training.checkpoint import load, save

__all__ = ["grow", "measure_norms", "reread"]

Weights = dict[str, Tensor]
#: Where a new unit's output gate begins: nearly shut.
SHUT = -3.0


@torch.no_grad()
def grow(small: Acoustic, config: AcousticConfig) -> Acoustic:
    """A model of ``config`` with the weights of ``small``. Both are of the family "lstm", with the same front, strides
    and kernel; nothing of ``config`` is smaller, and its dilations begin with those of ``small``."""
    old = small.config
    same = ("family", "sample_rate", "tokens", "bands", "front", "strides", "kernel", "cell")
    if old.family != "lstm" or any(getattr(old, name) != getattr(config, name) for name in same):
        raise ValueError(f"only a model of the family lstm grows, with the same {', '.join(same)}")
    if old.channels == old.hidden or config.channels == config.hidden:
        raise ValueError("channels and hidden units must differ in number: a projection stands between them")
    blocks = len(old.dilations)
    if config.dilations[:blocks] != old.dilations or config.layers < old.layers:
        raise ValueError("the larger model has the smaller one's layers, and others behind them")
    big = Acoustic(config)
    mine, theirs = big.state_dict(), small.state_dict()
    narrow, wide, units, all_units = old.channels, config.channels, old.hidden, config.hidden
    channels, width = torch.arange(narrow), torch.arange(units)

    def copy(*names: str) -> None:
        for name in names:
            mine[name].copy_(theirs[name])

    def part(name: str, rows: Tensor, columns: Tensor | None = None, keep: int = 1) -> None:
        """The old rows of a matrix, zero towards new columns; ``keep``: taps side by side in the columns."""
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
        # silent units make the variance smaller by their share
        mine[f"{stack}{name}.weight"][:few] = theirs[f"{stack}{name}.weight"] * (few / many) ** 0.5
        mine[f"{stack}{name}.bias"][:few] = theirs[f"{stack}{name}.bias"]


@torch.no_grad()
def reread(path: Path, config: AcousticConfig) -> Acoustic:
    """The model of ``config`` in a file that this project exported: its weights, out of the graph's constants.

    Batch norms are a factor and a summand there; :func:`measure_norms` finds their statistics again.
    """
    import onnx
    from onnx import numpy_helper

    constants = {
        tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy())
        for tensor in onnx.load(path).graph.initializer
    }
    model = Acoustic(config)
    weights = model.state_dict()
    named = {name.removeprefix("module."): value for name, value in constants.items() if name.startswith("module.")}
    anonymous = iter([value for name, value in constants.items() if not name.startswith("module.")])

    def following(shape: tuple[int, ...]) -> Tensor:
        for value in anonymous:
            if tuple(value.shape) == shape:
                return value
        raise ValueError(f"{path}: no constant of the shape {list(shape)}: another model, or exported otherwise")

    for name in _order(weights):
        if name in named and named[name].shape == weights[name].shape:
            weights[name].copy_(named[name])
        elif name.endswith("norm.norm.weight"):
            size = tuple(weights[name].shape)
            weights[name].copy_(following(size))
            weights[name.replace("weight", "bias")].copy_(following(size))
        elif "rnn.weight_ih" in name:
            hidden = weights[name].shape[1]
            for matrix in (name, name.replace("_ih_", "_hh_")):
                weights[matrix].copy_(_gates(following((1, 4 * hidden, hidden))[0]))
            both = following((1, 8 * hidden))[0].chunk(2)
            weights[name.replace("weight", "bias")].copy_(_gates(both[0]))
            weights[name.replace("weight_ih", "bias_hh")].copy_(_gates(both[1]))
        elif "rnn." not in name and not name.endswith(("norm.norm.bias", "running_mean", "running_var", "tracked")):
            weights[name].copy_(following(tuple(weights[name].shape[::-1])).T)
    for name, value in weights.items():
        if name.endswith("norm.norm.weight"):
            value.mul_((1.0 + nn.BatchNorm1d(1).eps) ** 0.5)  # statistics are 0 and 1 until they are measured
    model.load_state_dict(weights)
    return model.eval()


def _order(weights: Weights) -> Iterator[str]:
    """Names in the order in which the graph uses them: the head, which the module lists where it was made, is last."""
    yield from (name for name in weights if not name.startswith("head."))
    yield from ("head.weight", "head.bias")


def _gates(matrix: Tensor) -> Tensor:
    """ONNX's order of an LSTM's gates (i, o, f, c) to PyTorch's (i, f, g, o)."""
    i, o, f, c = matrix.chunk(4)
    return torch.cat([i, f, c, o])


@torch.no_grad()
def measure_norms(model: Acoustic, recordings: list[Pcm]) -> None:
    """Batch norms' statistics from what the model hears in ``recordings``; what it computes stays the same."""
    sums: dict[str, list[Any]] = {}

    def watch(name: str, layer: nn.Module) -> Any:
        def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].flatten(0, 1).double()
            found = sums.setdefault(name, [0, 0.0, 0.0])
            found[0] += len(x)
            found[1] = found[1] + x.sum(0)
            found[2] = found[2] + x.square().sum(0)

        return layer.register_forward_pre_hook(look)

    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, ChannelNorm)}
    hooks = [watch(name, layer) for name, layer in layers.items()]
    for pcm in recordings:
        whole(model, torch.from_numpy(np.array(pcm))[None])
    for hook in hooks:
        hook.remove()
    for name, (count, total, squares) in sums.items():
        norm = layers[name].norm
        mean, variance = (total / count).float(), (squares / count - (total / count).square()).float()
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        shift = norm.bias - norm.running_mean * scale
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_(scale * (variance + norm.eps).sqrt())
        norm.bias.copy_(shift + mean * scale)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m models.speech.grow", description=__doc__)
    parser.add_argument("small", help="a checkpoint (.pt), or the name of a recipe whose file ships")
    parser.add_argument("large", help="name of the recipe whose shape it shall have")
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
