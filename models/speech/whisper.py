"""Initialises an acoustic model of the family "attention" with the weights of Whisper's encoder (MIT licence).

The weights are in CTranslate2's ``model.bin`` (docs/english.md says how to get the folder). Whisper was trained on
680,000 hours; training continues its encoder with attention in blocks, phones as outputs, and examples without speech.

    python -m models.speech.whisper FOLDER english -o begin.pt
    python -m models train english --warm begin.pt
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.speech.acoustic import Acoustic
from models.speech.begin import recipe_parser, recipe_wanted
from models.speech.data import Pcm

__all__ = ["begin", "features", "read"]

Array = NDArray[np.float32]

#: CTranslate2's numbers of tensor types, and NumPy's names.
_TYPES = {0: "float32", 1: "int8", 2: "int16", 3: "int32", 4: "float16"}
#: About the most frames (100 a second) for the statistics of Whisper's features.
FRAMES = 60_000


def read(path: Path) -> dict[str, Array]:
    """The tensors of a CTranslate2 ``model.bin`` by name, as float32. Raises ``ValueError`` for another file."""
    data = path.read_bytes()
    at = 0

    def number(kind: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from("<" + kind, data, at)
        at += struct.calcsize(kind)
        return int(value)

    def text() -> str:
        nonlocal at
        length = number("H")
        at += length
        return data[at - length : at - 1].decode()

    try:
        version, spec = number("I"), text()
        if version != 6 or spec != "WhisperSpec":
            raise ValueError(f"it is {spec} of version {version}, not WhisperSpec of version 6")
        number("I")  # revision
        found = {}
        for _ in range(number("I")):
            name = text()
            shape = [number("I") for _ in range(number("B"))]
            kind, size = _TYPES[number("B")], number("I")
            found[name] = np.frombuffer(data, kind, size // np.dtype(kind).itemsize, at).reshape(shape)
            at += size
    except (struct.error, KeyError, ValueError) as error:
        raise ValueError(f"{path} is not a Whisper model of CTranslate2: {error}") from error
    if any(array.dtype == np.int8 and name.endswith("weight") for name, array in found.items()):
        raise ValueError(f"{path} holds int8 weights: use a model of float16 or float32")
    return {name: array.astype(np.float32) for name, array in found.items()}


def features(energies: Tensor) -> Tensor:
    """Whisper's features of a recording from its filters' energies [T, bands]: log10, clipped to 8 decades below the
    maximum, scaled to about -1 to 1.5."""
    decades = energies.clamp(min=1e-10).log10()
    return (torch.maximum(decades, decades.max() - 8.0) + 4.0) / 4.0


@torch.no_grad()
def begin(model: Acoustic, tensors: dict[str, Array], recordings: list[Pcm]) -> None:
    """Copy the weights into ``model``. Whisper's features have a fixed scale, this model's are normalised by running
    statistics. So the first convolution is adjusted by the mean and deviation of Whisper's features, in each band, on
    ``recordings``.

    Raises ``ValueError`` if the model's size is not that of the file.
    """
    stack = model.encoder.layers["attention"]
    mean, std = _statistics(model, recordings)
    weights = stack.state_dict()

    def put(name: str, value: Array | Tensor) -> None:
        value = torch.as_tensor(value)
        if weights[name].shape != value.shape:
            raise ValueError(f"{name} is {list(weights[name].shape)} here and {list(value.shape)} there")
        weights[name].copy_(value)

    def taps(kernel: Array) -> Tensor:
        """[out, in, width] -> [out, width * in], oldest first."""
        return torch.from_numpy(kernel.transpose(0, 2, 1).reshape(len(kernel), -1).copy())

    first = tensors["encoder/conv1/weight"]
    put("one.mix.weight", taps(first * std.numpy()[None, :, None]))
    put("one.mix.bias", tensors["encoder/conv1/bias"] + np.einsum("oik,i->o", first, mean.numpy()))
    put("two.mix.weight", taps(tensors["encoder/conv2/weight"]))
    put("two.mix.bias", tensors["encoder/conv2/bias"])
    parts = {
        "attention.{}.norm": "self_attention/layer_norm", "attention.{}.layer.enter": "self_attention/linear_0",
        "attention.{}.layer.leave": "self_attention/linear_1", "forward_.{}.norm": "ffn/layer_norm",
        "forward_.{}.layer.layers.0": "ffn/linear_0", "forward_.{}.layer.layers.2": "ffn/linear_1",
    }  # fmt: skip
    layers = len(stack.attention)
    if f"encoder/layer_{layers}/ffn/linear_0/weight" in tensors:
        raise ValueError(f"the file has more than {layers} layers")
    places = {mine.format(n): f"encoder/layer_{n}/{theirs}" for n in range(layers) for mine, theirs in parts.items()}
    for mine, theirs in {**places, "norm": "encoder/layer_norm"}.items():
        weight, bias = ("gamma", "beta") if theirs.endswith("norm") else ("weight", "bias")
        put(f"{mine}.weight", tensors[f"{theirs}/{weight}"])
        put(f"{mine}.bias", tensors[f"{theirs}/{bias}"])
    stack.load_state_dict(weights)


def _statistics(model: Acoustic, recordings: list[Pcm]) -> tuple[Tensor, Tensor]:
    """The mean and deviation of Whisper's features in each band [bands]."""
    mel, seen, count = model.front.layers["mel"], [], 0
    for pcm in recordings:
        whole = pcm[: len(pcm) // mel.stride * mel.stride]
        logs, _ = mel(torch.from_numpy(np.array(whole))[None], mel.initial_state(1))
        # Whisper's filters all have the same area, those of this front end the same height
        seen.append(features((logs[0].exp() - mel.floor) * mel.areas))
        count += len(seen[-1])
        if count > FRAMES:
            break
    frames = torch.cat(seen)
    return frames.mean(0), frames.std(0)


def main(arguments: list[str] | None = None) -> None:
    from models.recipes import set_normaliser
    from models.training.checkpoint import save

    parser = recipe_parser("models.speech.whisper", __doc__, folder="with model.bin, a Whisper model of CTranslate2")
    options, recipe = recipe_wanted(parser, arguments)
    model = Acoustic(recipe.config)
    set_normaliser(model, recipe.sources[0].utterances)
    spoken = [u.pcm for u in recipe.sources[0].utterances[::3]]
    begin(model, read(options.folder / "model.bin"), spoken)
    save(options.output, model.eval(), recipe.description())
    print(options.output)


if __name__ == "__main__":
    main()
