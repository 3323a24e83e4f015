"""Acoustic models: int16 PCM to token log-probabilities in one graph, for training with CTC (Graves et al. 2006).

All share the front end (log-mel, running normalisation) and reduce its 100 frames a second to 25 or 17. They differ in
the encoder: two strided convolutions, then a causal WaveNet, or a gated stack and an LSTM (convolutions leave CTC's
plateau of blanks within a few hundred steps, an LSTM alone takes many times as long); or a Transformer with attention
in blocks, in the shape of Whisper's encoder.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.layers import (
    Chain,
    GatedStack,
    LogMel,
    RecurrentStack,
    RunningNorm,
    State,
    Streaming,
    Subsample,
    TransformerStack,
    inner,
    outer,
)
from models.layers.config import Config

#: Frames whose mean log energy is at most ``QUIET`` above the mel floor are silent: white noise of an rms of 2 units of
#: int16 has 1.2. ``LEAST``: the smallest variance of the normaliser.
QUIET, LEAST = 1.0, 0.4
#: Largest distance of samples from their middle in a silent block, for attention in blocks.
DITHER = 1.0


@dataclass(frozen=True)
class AcousticConfig(Config):
    """Everything that fixes the shape of a model."""

    family: str  # "wavenet" | "lstm" | "attention"
    sample_rate: int
    tokens: int  # size of the vocabulary, blank (index 0) included
    bands: int = 40
    front: int = 96  # channels after the first subsampling
    strides: tuple[int, int] = (2, 2)  # 100 mel frames a second become 25, or 17 with (2, 3)
    channels: int = 128
    kernel: int = 3
    dilations: tuple[int, ...] = (1, 2, 4, 1, 2, 4)
    skip: int = 128
    cell: str = "lstm"
    hidden: int = 256
    layers: int = 2
    dropout: float = 0.1
    gated: bool = (
        False  # the normaliser ignores digital silence and dither, and does not amplify steady noise to speech
    )
    # of the family "attention":
    heads: int = 8
    merged: int = 2  # layers with 50 steps a second; the others have 25
    block: int = 8  # steps of a block: a chunk is a multiple of it
    centred: bool = False  # a constant offset has no energy in any band
    past: int = 32  # steps before the block that every layer attends to
    half: bool = False  # keys and values of the past are float16


class Acoustic(Streaming):
    """``forward(pcm int16 [B, N], state) -> (log_probs [B, N / hop, V], state)``; N is a multiple of ``block`` samples,
    in the last chunk of ``hop``. Raises ``ValueError`` for an unknown family."""

    def __init__(self, config: AcousticConfig) -> None:
        super().__init__()
        self.config = config
        attention, rate = config.family == "attention", config.sample_rate
        mel = (
            LogMel(rate, config.bands, low=0.0, high=rate / 2, scale="slaney", centred=config.centred)
            if attention
            else LogMel(rate, config.bands, centred=config.centred)
        )
        quiet = math.log(mel.floor) + QUIET if config.gated else None
        norm = RunningNorm(config.bands, quiet=quiet, least=LEAST if config.gated else 0.05)
        self.front = Chain({"mel": mel, "norm": norm})
        layers, width = _transformer(config) if attention else _convolutions(config)
        self.encoder = Chain(layers)
        self.width = width
        self.head = nn.Linear(width, config.tokens)
        self.hop = self.stride = self.front.stride * self.encoder.stride
        self.block = self.hop * (config.block if attention else 1)  # samples; a chunk is a multiple of it
        self.receptive_field = None  # because of the normaliser; see also context
        self.context = self.encoder.receptive_field  # mel frames, None for a recurrent encoder

    @property
    def sample_rate(self) -> int:
        return self.config.sample_rate

    def initial_state(self, batch: int) -> State:
        return outer(self.front.initial_state(batch), "front") | outer(self.encoder.initial_state(batch), "encoder")

    def forward(self, pcm: Tensor, state: State) -> tuple[Tensor, State]:
        features, front = self.front(pcm, inner(state, "front"))
        log_probs, encoder = self.encode(features, inner(state, "encoder"), self._heard(pcm))
        return log_probs, outer(front, "front") | outer(encoder, "encoder")

    def _heard(self, pcm: Tensor) -> Tensor | None:
        """[B, blocks], 1 for a block with more than a constant and dither of one bit; ``None`` without blocks."""
        if self.block == self.hop:
            return None
        padded = nn.functional.pad(pcm.to(torch.float32), (0, -pcm.shape[1] % self.block))
        blocks = padded.unflatten(1, (-1, self.block))
        return (blocks.amax(2) - blocks.amin(2) > 2 * DITHER).to(torch.float32)

    def encode(self, features: Tensor, state: State, heard: Tensor | None = None) -> tuple[Tensor, State]:
        """Normalised features [B, T, bands] -> (log_probs [B, T / 4, V], state of the encoder). ``heard`` [B, blocks]:
        1 for a block with sound."""
        hidden, _, state = self.hidden(features, state, heard)
        return self.head(hidden).log_softmax(dim=2), state

    def hidden(
        self, features: Tensor, state: State, heard: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, State]:
        """The input of the head [B, T / 4, width]; for losses in the middle of the model, the input of the recurrent
        layers [B, T / 4, channels] (``None`` without them); the state."""
        new: State = {}
        x, between = features, None
        for name, layer in self.encoder.layers.items():
            x, part = layer(x, inner(state, name)) if heard is None else layer(x, inner(state, name), heard)
            new |= outer(part, name)
            if name == "gated":
                between = x
        return x, between, new


def _convolutions(config: AcousticConfig) -> tuple[dict[str, Streaming], int]:
    """The encoder's layers, and the width of their output."""
    layers: dict[str, Streaming] = {
        "halve": Subsample(config.bands, config.front, 2 * config.strides[0] + 1, config.strides[0]),
        "quarter": Subsample(config.front, config.channels, 2 * config.strides[1] + 1, config.strides[1]),
    }
    if config.family == "wavenet":
        layers["wavenet"] = GatedStack(config.channels, config.dilations, config.kernel, config.skip, config.dropout)
        return layers, config.skip
    if config.family == "lstm":
        layers["gated"] = GatedStack(config.channels, config.dilations, config.kernel, 0, config.dropout)
        layers["lstm"] = RecurrentStack(config.cell, config.channels, config.hidden, config.layers, config.dropout)
        return layers, config.hidden
    raise ValueError(f"family {config.family!r}: 'wavenet', 'lstm' or 'attention'")


def _transformer(config: AcousticConfig) -> tuple[dict[str, Streaming], int]:
    stack = TransformerStack(
        config.bands, config.channels, config.heads, config.layers, config.merged, config.block, config.past,
        config.dropout, config.half,
    )  # fmt: skip
    return {"attention": stack}, config.channels


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@torch.no_grad()
def whole(model: Acoustic, pcm: Tensor) -> Tensor:
    """Log-probabilities [B, T, V] of int16 [B, N] from the start of a stream; N is cut to a multiple of the hop."""
    pcm = pcm[:, : pcm.shape[1] // model.hop * model.hop]
    return model(pcm, model.initial_state(pcm.shape[0]))[0]
