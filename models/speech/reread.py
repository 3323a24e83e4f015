"""Loads the trained weights of an exported file back into PyTorch, so that training can continue from a shipped model.

The weights of an int8 file are the rounded ones.

    python -m models.speech.reread english -o begin.pt      # the weights of a recipe's shipped file
    python -m models train english --warm begin.pt
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.layers.conv import ChannelNorm
from models.speech.acoustic import Acoustic, AcousticConfig, whole
from models.speech.begin import recipe_parser, recipe_wanted
from models.speech.data import Pcm

__all__ = ["measure_norms", "reread"]

Weights = dict[str, Tensor]


@torch.no_grad()
def reread(path: Path, config: AcousticConfig) -> Acoustic:
    """The model of ``config``, with the weights from the constants of a graph that this project exported. Raises
    ``ValueError`` if the file holds another model.

    In the graph a batch norm is a factor and a summand; :func:`measure_norms` restores its statistics.
    """
    import onnx
    from onnx import numpy_helper

    constants = _products(
        {tensor.name: numpy_helper.to_array(tensor).copy() for tensor in onnx.load(path).graph.initializer}
    )
    model = Acoustic(config)
    weights = model.state_dict()
    named = {name.removeprefix("module."): value for name, value in constants.items() if name.startswith("module.")}
    anonymous = [value for name, value in constants.items() if not name.startswith("module.")]

    def following(shape: tuple[int, ...]) -> Tensor:
        """The next constant of ``shape``; constants of one shape are in the order in which the graph uses them."""
        for index, value in enumerate(anonymous):
            if tuple(value.shape) == shape:
                return anonymous.pop(index)
        raise ValueError(f"{path}: no constant of the shape {list(shape)}: another model, or from another exporter")

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


def _products(constants: dict[str, NDArray[Any]]) -> dict[str, Tensor]:
    """``constants`` as tensors, with int8 matrices (``export/int8.py``) converted back to float32."""
    found: dict[str, Tensor] = {}
    for name, value in constants.items():
        base, _, part = name.partition(".int8.")
        if name.startswith("int8/") or part.endswith(("scale", "gates")):
            continue
        if part.endswith("weight"):
            scale = constants[name.removesuffix("weight") + "scale"]
            matrix = value.astype(np.float32) * scale
            if part.startswith("step"):  # its scale includes that of the hidden state
                matrix = matrix * 127
            value = matrix if part == "weight" else matrix.T[None]
            found[f"{base}.{part}"] = torch.from_numpy(np.ascontiguousarray(value))
        elif part == "input.bias":  # the sum of both biases
            found[name] = torch.from_numpy(np.concatenate([value, np.zeros_like(value)])[None])
        else:
            found[name] = torch.from_numpy(value)
    return found


def _order(weights: Weights) -> Iterator[str]:
    """Names in the order in which the graph uses them: the head is last."""
    yield from (name for name in weights if not name.startswith("head."))
    yield from ("head.weight", "head.bias")


def _gates(matrix: Tensor) -> Tensor:
    """Rows reordered from ONNX's order of an LSTM's gates (i, o, f, c) to PyTorch's (i, f, g, o)."""
    i, o, f, c = matrix.chunk(4)
    return torch.cat([i, f, c, o])


@torch.no_grad()
def measure_norms(model: Acoustic, recordings: list[Pcm]) -> None:
    """Set the batch norms' statistics from their inputs for ``recordings``, without changing the model's outputs."""
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
    from models.training.checkpoint import save
    from streamer.engine.catalogue import resolve

    options, recipe = recipe_wanted(recipe_parser("models.speech.reread", __doc__), arguments)
    model = reread(resolve(options.recipe), recipe.config)
    measure_norms(model, [u.pcm for u in recipe.sources[0].utterances[::12]])
    save(options.output, model, recipe.description())
    print(options.output, {key: round(value, 3) for key, value in recipe.evaluate(model).items()})


if __name__ == "__main__":
    main()
