"""The host's code that a model needs, in NumPy: the reference for the adopted file, sample by sample.

The original files run unchanged, one stream at a time. Overlap, transforms, counters and the chaining of files are
computed here, in float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.adopt.batch import Settled, back
from export.adopt.chain import GraphChain
from export.adopt.graph import constants
from export.adopt.spectrum import spectra, synthesis_window
from export.adopt.stream import InputStream
from streamer.contract.probe import Signal

__all__ = ["drive"]

Array = NDArray[Any]


def drive(chain: GraphChain, signal: Signal) -> dict[str, Array]:
    """Run ``signal`` of one stream from its start. Returns every output of the adopted file, [chunks, 1, ...]."""
    runs = [_Run(settled, signal.conditions) for settled in chain.parts]
    first, *more = chain.parts[0].part.streams
    feeds = [_Window(first, signal.inputs[chain.input.name])]
    feeds += [_Window(one, signal.inputs[other.name]) for one, other in zip(more, chain.more, strict=True)]
    tail = np.zeros(0 if chain.host is None else chain.host.fft - chain.host.hop)
    gave: dict[str, list[Any]] = {result.name: [] for result in chain.results}
    for number in range(len(signal)):
        x, *others = [feed(number) for feed in feeds]
        if chain.scale is not None:
            x = x.astype(np.float64) * chain.scale
        if chain.host is None:
            raw, sound = [runs[0](x, *others)], None
        else:
            raw, sound, tail = _spectral(chain, runs, x[0], tail)
        for result in chain.results:
            plain = result.kind == "plain"
            gave[result.name].append(result.layout.outward(raw[result.part][result.source]) if plain else sound)
    return {name: np.stack(column) for name, column in gave.items()}


class _Window:
    """Chunks [chunks, 1, ...] of a stream, each after its overlap with the chunks before."""

    def __init__(self, stream: InputStream, chunks: Array) -> None:
        self.stream, self.chunks = stream, chunks
        self.before = np.full((1, stream.overlap, *chunks.shape[3:]), stream.start, chunks.dtype)

    def __call__(self, number: int) -> Array:
        x = np.concatenate([self.before, self.chunks[number]], axis=1)
        self.before = x[:, x.shape[1] - self.stream.overlap :]
        return x


class _Run:
    """One file and its state."""

    def __init__(self, settled: Settled, conditions: Mapping[str, Array]) -> None:
        self.part = settled.part
        self.session = settled.part.foreign.session()
        self.names = [output.name for output in self.session.get_outputs()]
        self.state = {m.name: m.first() for m in self.part.states}
        self.given = {
            m.name: settled.memories[m.name].inward(conditions[m.name]).reshape(m.raw) for m in self.part.conditions
        }

    def __call__(self, *canonical: Array) -> dict[str, Array]:
        part = self.part
        fresh = {
            one.name: one.layout.inward(array.astype(one.dtype)).reshape(one.layout.raw_at(1))
            for one, array in zip(part.streams, canonical, strict=True)
        }
        feeds = {**fresh, **self.given, **self.state, **constants(part)}
        got = dict(zip(self.names, self.session.run(self.names, feeds), strict=True))
        self.state = {m.name: back(m, self.state[m.name], got) for m in part.states}
        return got


def _spectral(
    chain: GraphChain, runs: Sequence[_Run], sound: Array, tail: Array
) -> tuple[list[dict[str, Array]], Array | None, Array]:
    """Transform the frames of one call and back. Returns each graph's outputs (raw), the sound by overlap-add if there
    is any, and the tail for the next call."""
    host, kind = chain.host, chain.source.kind
    assert host is not None
    count = chain.source.layout.shape[0]
    seen = spectra(sound, host, count)  # [frames, bins]
    if kind == "complex":
        feature = np.stack([seen.real, seen.imag], axis=-1)
    elif kind == "frame":
        feature = np.fft.irfft(seen, host.fft)
    else:
        feature = np.abs(seen) ** (2 if kind == "power" else 1)
    raw = [runs[0](feature[None])]
    result = chain.sound
    if result is None:
        return raw, None, tail
    out = result.layout.outward(raw[0][result.source])[0].astype(np.float64)  # [frames, ...]
    whole = out[..., 0] + 1j * out[..., 1] if out.ndim == 3 else out
    if result.kind == "frame":
        frames = out
    else:
        frames = np.fft.irfft(seen * whole if result.kind == "mask" else whole, host.fft)
    if len(runs) > 1:
        raw.append(runs[1](frames[None]))
        assert chain.last is not None
        frames = chain.last.outward(raw[1][runs[1].part.roles.results[0]])[0].astype(np.float64)
    frames = frames * synthesis_window(host)
    total = np.concatenate([tail, np.zeros(count * host.hop)])
    for number in range(count):
        total[number * host.hop :][: host.fft] += frames[number]
    new = count * host.hop
    return raw, total[:new].astype(np.float32)[None], total[new:]
