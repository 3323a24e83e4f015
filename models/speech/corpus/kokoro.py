"""Kokoro-82M (Apache-2.0, StyleTTS 2: Li et al. 2023, arXiv 2306.07691): one network, any number of blended voices.

A voice is a table of styles [510, 256] with a row for each length of text: the first half controls the vocoder
(timbre), the second the prosody. Weighted blends of voices are new speakers; the two halves may be of different blends.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

from models.speech.corpus.vocoder import DURATIONS, FEATURES, ROOT, SOURCE, Vocoder

RATE = 24000
#: Seconds by which the sound is ahead of the model's durations, according to PocketSphinx's alignments.
EARLY = 0.07
LONGEST = 400  # symbols of one text; the model's limit is 510

Style = NDArray[np.float32]


class Graph:
    """The weights of the generator in an int8 file, by name, as float32: ``PLACE/kernel`` and ``PLACE/bias`` of a
    convolution or matrix, ``BLOCK/alphaH.I`` of an activation. Raises ``KeyError`` for other names."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.values = {tensor.name: tensor for tensor in model.graph.initializer}
        self.nodes = {node.name: node for node in model.graph.node}

    def __call__(self, name: str) -> NDArray[np.float32]:
        place, _, what = name.rpartition("/")
        dotted = ROOT.strip("/").replace("/", ".") + "." + place.replace("/", ".")
        if what.startswith("alpha"):
            return self._value(f"{dotted}.{what}")
        if what == "bias":
            return self._value(f"{dotted}.bias")
        for operator, zero in (("Conv_quant", 3), ("Gemm_MatMul_quant", 3)):
            node = self.nodes.get(f"{ROOT}{place}/{operator}")
            if node is not None:
                scale = node.input[1].replace("_quantized", "_scale")
                offset = self._value(node.input[zero]).astype(np.float32)
                return (self._value(node.input[1]).astype(np.float32) - offset) * self._value(scale)
        for operator in ("ConvTranspose", "Conv"):
            node = self.nodes.get(f"{ROOT}{place}/{operator}")
            if node is not None:
                return self._value(node.input[1])
        raise KeyError(f"{name}: the graph has no such weights")

    def _value(self, name: str) -> NDArray[np.float32]:
        return numpy_helper.to_array(self.values[name])


def cut(path: Path, front: Path) -> None:
    """Write the part of the graph before the generator to ``front``, unless it exists: tokens, style, speed ->
    features, source, durations."""
    if front.exists():
        return
    model = onnx.load(path)
    wanted = [FEATURES, SOURCE, DURATIONS]
    produced = {output: node for node in model.graph.node for output in node.output}
    needed: set[str] = set()
    while wanted:
        node = produced.get(wanted.pop())
        if node is not None and node.output[0] not in needed:
            needed.add(node.output[0])
            wanted += node.input
    nodes = [node for node in model.graph.node if node.output[0] in needed]
    used = {name for node in nodes for name in node.input}
    outputs = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in (FEATURES, SOURCE, DURATIONS)
    ]
    values = [value for value in model.graph.initializer if value.name in used]
    graph = onnx.helper.make_graph(nodes, "front", list(model.graph.input), outputs, values)
    domains = {node.domain for node in nodes} | {""}
    opsets = [opset for opset in model.opset_import if opset.domain in domains]
    whole = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version)
    # each of several processes that begin together has a file of its own
    with tempfile.NamedTemporaryFile(dir=front.parent, suffix=".tmp", delete=False) as partial:
        onnx.save(whole, partial)
    Path(partial.name).replace(front)


def session(path: Path) -> onnxruntime.InferenceSession:
    """A session with one thread, which does not spin."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class Kokoro:
    """``model``: the joined ONNX file; ``vocabulary``: its ``vocab.json``; ``voices``: the folder of ``NAME.bin``."""

    def __init__(self, model: Path, vocabulary: Path, voices: Path) -> None:
        self.vocabulary: dict[str, int] = json.loads(vocabulary.read_text())["vocab"]
        self.voices = {path.stem: load_voice(path) for path in sorted(voices.glob("*.bin"))}
        front = model.with_name("front.onnx")
        cut(model, front)
        self.front = session(front)
        self.vocoder = Vocoder(Graph(onnx.load(model)))

    def __call__(
        self, phonemes: str, style: Style, speed: float = 1.0
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Samples, float32 at 24 kHz, and the bounds of the N spoken symbols in seconds [N + 1]. Symbols outside of the
        vocabulary are skipped. ``style`` [510, 256]. Raises ``ValueError`` for no symbol, or more than
        :data:`LONGEST`."""
        ids = [self.vocabulary[symbol] for symbol in phonemes if symbol in self.vocabulary]
        if not 0 < len(ids) <= LONGEST:
            raise ValueError(f"{len(ids)} symbols: 1 to {LONGEST} can be spoken at once")
        row = style[len(ids) - 1]
        features, source, durations = self.front.run(
            [FEATURES, SOURCE, DURATIONS],
            {
                "tokens": np.array([[0, *ids, 0]], np.int64),
                "style": row[None],
                "speed": np.array([speed], np.float32),
            },
        )
        bounds = np.cumsum(durations.reshape(-1)[:-1]) * np.float32(0.025) - np.float32(EARLY)
        return self.vocoder(features, source, row[:128]).numpy(), bounds


def load_voice(path: Path) -> Style:
    return np.fromfile(path, np.float32).reshape(510, 256)


@dataclass(frozen=True)
class VoiceBlend:
    """Shares of voices, which sum to 1, in the timbre and in the prosody."""

    timbre: dict[str, float]
    prosody: dict[str, float]

    @property
    def name(self) -> str:
        def said(shares: dict[str, float]) -> str:
            return "+".join(f"{voice}:{share:.2f}" for voice, share in shares.items())

        return said(self.timbre) if self.timbre == self.prosody else f"{said(self.timbre)}/{said(self.prosody)}"


def blend(voices: dict[str, Style], speaker: VoiceBlend) -> Style:
    """The style table [510, 256] of a speaker."""

    def mix(shares: dict[str, float], part: slice) -> Style:
        return sum(np.float32(share) * voices[name][:, part] for name, share in shares.items())  # type: ignore[return-value]

    return np.concatenate([mix(speaker.timbre, slice(0, 128)), mix(speaker.prosody, slice(128, 256))], axis=1)
