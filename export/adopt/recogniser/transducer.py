"""In-graph greedy search of a transducer with a stateless predictor: at most one token in each frame.

In every frame the joiner runs once, on the encoder's frame and the decoder's output for the last ``context`` tokens
(k2's stateless predictor; Ghodsi et al. 2020). The best token is emitted, unless it is the blank or the unknown token.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnxruntime import InferenceSession

from export.adopt.ops import Ops
from export.adopt.read import Foreign
from export.adopt.report import AdoptionError
from export.adopt.roles import Port

__all__ = ["TransducerSearch", "search_of"]


@dataclass(frozen=True)
class TransducerSearch:
    """``context``: number of last tokens that the decoder takes. ``size``: number of tokens. ``free``: both graphs take
    any batch. ``silent``: tokens that are not emitted."""

    decoder: Foreign
    joiner: Foreign
    context: int
    size: int
    silent: tuple[int, ...]
    free: bool

    @property
    def start(self) -> NDArray[np.int64]:
        """The last tokens [context] at the start of a stream: -1 (none), then a blank."""
        return np.array([-1] * (self.context - 1) + [0])

    @cached_property
    def _sessions(self) -> tuple[InferenceSession, InferenceSession]:
        return self.decoder.session(), self.joiner.session()

    # -- in NumPy ------------------------------------------------------------------------------------------------------

    def run(self, encoded: NDArray[Any], history: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Search ``encoded`` [1, T, D] from the last tokens ``history`` [1, context]. Returns log-probabilities
        [1, T, tokens] and the new last tokens."""
        decoder, joiner = self._sessions
        rows = []
        for t in range(encoded.shape[1]):
            (predicted,) = decoder.run(None, {self.decoder.inputs[0].name: history})
            encoded_name, predicted_name = (port.name for port in self.joiner.inputs)
            (logits,) = joiner.run(None, {encoded_name: encoded[:, t], predicted_name: predicted})
            rows.append(logits - np.logaddexp.reduce(logits.astype(np.float64), axis=-1, keepdims=True))
            token = int(logits.argmax())
            if token not in self.silent:
                history = np.concatenate([history[:, 1:], [[token]]], axis=1)
        return np.stack(rows, axis=1).astype(np.float32), history

    # -- in a graph ----------------------------------------------------------------------------------------------------

    def put(self, ops: Ops, encoded: ir.Value, history: ir.Value) -> tuple[ir.Value, ir.Value, list[ir.Model]]:
        """Append the search: ``encoded`` [B, T, D] and ``history`` [B, context] -> log-probabilities [B, T, tokens],
        new last tokens [B, context]; and the graphs that were consumed."""
        batch = "batch" if self.free else 1
        each = ir.Value(name="search/heard", shape=ir.Shape([batch, encoder_size(self.joiner)]), type=_FLOAT)
        last = ir.Value(name="search/history", shape=ir.Shape([batch, self.context]), type=_INT64)
        body = Ops("search")
        models = [self.decoder.model(), self.joiner.model()]
        given = body.graph(models[0], {self.decoder.inputs[0].name: last}, "decoder/")
        (predicted,) = given.values()
        encoded_name, predicted_name = (port.name for port in self.joiner.inputs)
        (logits,) = body.graph(models[1], {encoded_name: each, predicted_name: predicted}, "joiner/").values()
        token = body("ArgMax", logits, axis=1, keepdims=1)
        silent = body("Equal", token, body.constant(self.silent[0]))
        for index in self.silent[1:]:
            silent = body("Or", silent, body("Equal", token, body.constant(index)))
        later = body.join(body.cut(last, 1, self.context, 1), token, axis=1) if self.context > 1 else token
        after = body("Where", silent, last, later)
        scores = body("LogSoftmax", logits, axis=1)
        for value, shape, kind in ((after, [batch, self.context], _INT64), (scores, [batch, self.size], _FLOAT)):
            value.shape, value.type = ir.Shape(shape), kind
        graph = ir.Graph([last, each], [after, scores], nodes=body.nodes, name="search")
        node = ir.node(
            "Scan",
            [history, encoded],
            attributes={"body": graph, "num_scan_inputs": 1, "scan_input_axes": [1], "scan_output_axes": [1]},
            num_outputs=2,
        )
        node.name = "search/scan"
        for value, name in zip(node.outputs, ("history", "log_probs"), strict=True):
            value.name = f"search/{name}.y"
        ops.nodes.append(node)
        ops.initial += body.initial
        return node.outputs[1], node.outputs[0], models


_FLOAT, _INT64 = ir.TensorType(ir.DataType.FLOAT), ir.TensorType(ir.DataType.INT64)


def encoder_size(joiner: Foreign) -> int | None:
    size = joiner.inputs[0].dims[-1]
    return size if isinstance(size, int) else None


def search_of(decoder: Foreign, joiner: Foreign) -> TransducerSearch:
    """The search with these graphs. Raises :class:`AdoptionError` for graphs of another form."""
    if len(decoder.inputs) != 1 or len(decoder.outputs) != 1 or decoder.inputs[0].dtype != "int64":
        raise AdoptionError(
            f"{decoder.path.name} takes {_ports(decoder.inputs)}: only decoders that take the last tokens, "
            "int64 [N, context], and nothing else (k2's) are supported"
        )
    y = decoder.inputs[0]
    if len(y.dims) != 2:
        raise AdoptionError(f"{decoder.path.name} takes {y}: [N, context] is needed")
    number = decoder.metadata.get("context_size", "")
    context = y.dims[1] if isinstance(y.dims[1], int) else int(number) if number.isdecimal() else None
    if context is None:
        raise AdoptionError(f"{decoder.path.name} does not say context_size in its metadata")
    if len(joiner.inputs) != 2 or len(joiner.outputs) != 1 or any(len(port.dims) != 2 for port in joiner.inputs):
        raise AdoptionError(f"{joiner.path.name} takes {_ports(joiner.inputs)}: [N, D] twice is needed")
    size = joiner.outputs[0].dims[-1]
    if not isinstance(size, int):
        text = decoder.metadata.get("vocab_size", "")
        if not text.isdecimal():
            raise AdoptionError(f"{decoder.path.name} does not say vocab_size in its metadata")
        size = int(text)
    free = all(not isinstance(port.dims[0], int) for port in (y, *joiner.inputs))
    return TransducerSearch(decoder, joiner, context, size, (0,), free)


def _ports(ports: tuple[Port, ...]) -> str:
    return ", ".join(map(str, ports))
