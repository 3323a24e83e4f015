"""Assembles the adopted graph: sound in, features, the recogniser, its search, log-probabilities out.

A call gives ``shift`` new rows of features, and the recogniser takes ``window`` rows at once, so it runs some calls
behind the sound. Until the first window is complete, results are certain blanks and the recogniser's states stay zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from export.adopt.around import Adopted, Outside, put, whole
from export.adopt.batch import Settled
from export.adopt.ops import Ops
from export.adopt.recogniser.frontend import Frontend
from export.adopt.recogniser.kinds import Kind
from export.adopt.recogniser.tokens import Tokens
from export.adopt.recogniser.transducer import TransducerSearch
from export.adopt.report import AdoptionError, Report

__all__ = ["NEVER", "Recogniser", "assemble"]

#: A state: the number of calls so far, up to the first call with a result.
CALLS = "stream.calls"
#: Log-probability of all tokens but the blank before the first result; finite, which makes comparisons simpler.
NEVER = -100.0


@dataclass(frozen=True)
class Recogniser:
    """A recogniser to be assembled. ``search``: a transducer's. ``early``: as in the settings."""

    kind: Kind
    frontend: Frontend
    tokens: Tokens
    settled: Settled
    search: TransducerSearch | None
    early: bool = False

    @property
    def free(self) -> bool:
        """Whether the batch may have any size."""
        return self.settled.free and (self.search is None or self.search.free)

    @property
    def chunk(self) -> int:
        """Samples in a call."""
        return self.kind.shift * self.frontend.shift

    @property
    def result(self) -> str:
        """The name of the encoder's result."""
        return self.settled.part.roles.results[0]

    @cached_property
    def steps(self) -> int:
        """Rows of results in a call. Raises :class:`AdoptionError` if a call's samples can't be divided evenly into
        them."""
        layout = self.settled.layout(self.result)
        if len(layout.shape) != 2 or self.chunk % layout.shape[0]:
            raise AdoptionError(
                f"{self.kind.graph.path.name} gives {list(layout.shape)} for {self.kind.shift} rows of features, which "
                "can't be divided evenly into rows of results"
            )
        return layout.shape[0]

    @property
    def size(self) -> int:
        """Number of tokens that are scored."""
        return self.search.size if self.search is not None else self.settled.layout(self.result).shape[1]

    @property
    def held(self) -> int:
        """Number of calls before the first whole window."""
        # c + 1 calls give (c + 1) shift - 1 rows: the last one lacks samples
        return 0 if self.early else -(-(self.kind.window + 1) // self.kind.shift) - 1

    @property
    def rows(self) -> int:
        """Rows of features that a call keeps for the next one."""
        return self.kind.window - self.kind.shift if self.early else self.held * self.kind.shift - 1

    @property
    def latency(self) -> int:
        """Steps by which results are behind the sound."""
        hop = self.kind.shift // self.steps
        return -(-(self.kind.window - self.kind.shift + 1) // hop) if self.early else self.held * self.steps


def assemble(recogniser: Recogniser, report: Report) -> Adopted:
    """The adopted graph. Consumes the recogniser's graphs."""
    kind, frontend, steps = recogniser.kind, recogniser.frontend, recogniser.steps
    ops, outside = Ops(), Outside("batch" if recogniser.free else 1)
    pcm = outside.take("pcm", "int16", (recogniser.chunk,))
    most = recogniser.held + 1
    calls = outside.state(CALLS, f"{CALLS}.next", "int64", (1,))
    more = ops("Where", ops("Less", calls, ops.constant(most)), ops("Add", calls, ops.constant(1)), calls)
    outside.give(ops, more, f"{CALLS}.next", "int64", (1,))
    begins = ops("Less", calls, ops.constant(1))
    counts = None if recogniser.early else ops("Not", ops("Less", calls, ops.constant(recogniser.held)))
    before = outside.state("frontend.samples", "frontend.samples.next", "int16", (frontend.carry,))
    fresh, kept = frontend.rows(ops, pcm, before, None if recogniser.early else begins, kind.shift)
    outside.give(ops, kept, "frontend.samples.next", "int16", (frontend.carry,))
    report.did(f"brought {frontend} inside")
    rows = ops.join(_rows(ops, outside, recogniser, begins), fresh, axis=1)
    have = recogniser.rows + kind.shift
    outside.give(
        ops, ops.cut(rows, kind.shift, have, 1), "frontend.rows.next", "float32", (recogniser.rows, frontend.bins)
    )
    window = ops.cut(rows, 0, kind.window, 1)
    if recogniser.held:
        report.did(f"held its states at zero in the first {recogniser.held} calls, until {kind.window} rows are there")
    ran = ops("Not", ops("Less", calls, ops.constant(most)))
    models = [recogniser.settled.model]
    gave = put(ops, outside, recogniser.settled, window, ran, "", report, counts)
    result = ops.outward(gave[recogniser.result], recogniser.settled.layout(recogniser.result))
    if recogniser.search is not None:
        result, inside = _searched(ops, outside, recogniser.search, result, counts)
        models += inside
        report.did("put decoder and joiner behind the encoder: a greedy search with at most one token in each frame")
    if counts is not None:
        blanks = np.full((1, steps, recogniser.size), NEVER, np.float32)
        blanks[:, :, recogniser.tokens.blank] = 0
        result = ops("Where", ops.reshape(counts, (-1, 1, 1)), result, ops.constant(blanks, np.float32))
    if recogniser.search is not None:
        result = ops.reshape(result, (-1, steps, 1, recogniser.size))
    shape = (steps, recogniser.size) if recogniser.search is None else (steps, 1, recogniser.size)
    outside.give(ops, result, "log_probs", "float32", shape)
    return Adopted(whole(models, ops, outside), tuple(outside.states))


def _rows(ops: Ops, outside: Outside, recogniser: Recogniser, begins: ir.Value) -> ir.Value:
    """The rows [B, rows, bins] that earlier calls kept; with ``early``, the rows of silence in a stream's first
    call."""
    frontend = recogniser.frontend
    shape = (recogniser.rows, frontend.bins)
    before = outside.state("frontend.rows", "frontend.rows.next", "float32", shape)
    if not recogniser.early:
        return before
    silence = ops.constant(np.log(np.finfo(np.float32).eps), np.float32)
    return ops("Where", ops.reshape(begins, (-1, 1, 1)), silence, before)


def _searched(
    ops: Ops, outside: Outside, search: TransducerSearch, encoded: ir.Value, counts: ir.Value | None
) -> tuple[ir.Value, list[ir.Model]]:
    """The search's log-probabilities, and the graphs that it consumed. Its state is the difference of the last tokens
    to their start, since a state starts as zeros."""
    shape = (search.context,)
    start = ops.constant(search.start)
    kept = outside.state("search.history", "search.history.next", "int64", shape)
    log_probs, after, models = search.put(ops, encoded, ops("Add", kept, start))
    after = ops("Sub", after, start)
    if counts is not None:
        after = ops("Where", counts, after, kept)
    outside.give(ops, after, "search.history.next", "int64", shape)
    return log_probs, models
