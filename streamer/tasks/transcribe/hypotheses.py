"""Hypotheses of the prefix beam search as flat arrays, and the arithmetic of their log-probabilities.

A hypothesis is a column of an int64 array [FIELDS, H], with floats stored as their bits. A stream's hypotheses are
adjacent, best first; only live ones are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DONE",
    "FIELDS",
    "FLOOR",
    "HASH",
    "HIST",
    "IMPOSSIBLE",
    "LAST",
    "LM",
    "NODE",
    "PB",
    "PEAK",
    "PN",
    "START",
    "START_HASH",
    "TOKENS",
    "Hypotheses",
    "added",
    "alive",
    "logadd",
    "mix",
    "mix_in",
    "padded",
    "spread",
    "sums",
    "totals",
]

#: Fields of a hypothesis. Floats: log p of its paths ending in blank, not ending in blank; sum of the log-posterior
#: peaks of the word's earlier tokens; peak of its last token. Integers: hash of the words (or of the LM state), tree
#: node, last token, LM state, entry in the table of words, step at which the word began, number of the word's tokens.
PB, PN, DONE, PEAK, HASH, NODE, LAST, LM, HIST, START, TOKENS = range(11)
FIELDS = 11
START_HASH = 0x2545F4914F6CDD1D
#: Log-probabilities are raised to this floor, which keeps sums finite and exact for any model output.
FLOOR = -1000.0
#: Below every reachable score and above that of a dead hypothesis.
IMPOSSIBLE = -1e300

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: An empty place in a saved beam, [FIELDS, 1].
DEAD: Ints = np.zeros((FIELDS, 1), np.int64)
DEAD[[PB, PN]] = np.float64(-np.inf).view(np.int64)
DEAD[HIST] = -1

_U30, _U27, _U31 = np.uint64(30), np.uint64(27), np.uint64(31)
_A, _B, _C = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@dataclass(slots=True)
class Hypotheses:
    """The hypotheses of ``n`` streams: ``fields`` [FIELDS, H]; ``total`` [H], log p of all paths of each; ``row`` [H],
    its stream; ``count`` [n], at least 1, and ``begin`` [n]: a stream's number of hypotheses and its first one.
    """

    fields: Ints
    total: Floats
    row: Ints
    count: Ints
    begin: Ints

    @classmethod
    def of(cls, beams: Sequence[Ints]) -> Hypotheses:
        """``beams``: each stream's [FIELDS, at least 1]."""
        fields = np.concatenate(beams, axis=1)
        count = np.array([beam.shape[1] for beam in beams], np.int64)
        return cls(fields, totals(fields), np.arange(len(beams)).repeat(count), count, count.cumsum() - count)

    def split(self, n: int) -> tuple[Hypotheses, Ints, Ints]:
        """The hypotheses of the first ``n`` streams, then ``fields`` and ``count`` of the other streams."""
        end = int(self.begin[n])
        first = Hypotheses(self.fields[:, :end], self.total[:end], self.row[:end], self.count[:n], self.begin[:n])
        return first, self.fields[:, end:], self.count[n:]


def logadd(a: Floats, b: Floats, *, possible: bool = False) -> Floats:
    """``log(exp(a) + exp(b))``, elementwise: as ``np.logaddexp``, five times as fast.

    ``possible``: the caller knows that no pair is infinite on both sides.
    """
    high = np.maximum(a, b)
    apart = np.minimum(a, b)
    apart -= high if possible else np.maximum(high, IMPOSSIBLE)  # never inf - inf
    np.exp(apart, out=apart)
    np.log1p(apart, out=apart)
    high += apart
    return high


def added(scores: Floats, keys: Ints) -> Floats:
    """For each score [M]: ``log(sum(exp))`` of all scores that have the same key [M]."""
    order = keys.argsort(kind="stable")
    ordered = keys.take(order)
    begins = np.append(True, ordered[1:] != ordered[:-1])
    group = begins.cumsum() - 1
    together = np.empty(len(keys))
    together[order] = sums(scores.take(order), begins.nonzero()[0], group).take(group)
    return together


def sums(values: Floats, begin: Ints, group: Ints) -> Floats:
    """``log(sum(exp))`` of each group. Its elements are adjacent in ``values`` [M]; ``begin``: the index of its first
    one; ``group`` [M]: the number of each element's group."""
    top = np.maximum.reduceat(values, begin)
    scaled = np.exp(values - np.maximum(top, IMPOSSIBLE).take(group))
    return np.asarray(top + np.log(np.maximum(np.add.reduceat(scaled, begin), 1.0)))


def totals(fields: Ints) -> Floats:
    """log p [H] of all paths of each hypothesis."""
    floats = fields.view(np.float64)
    return logadd(floats[PB], floats[PN])


def alive(fields: Ints) -> Ints:
    """The hypotheses whose probability is not 0."""
    return np.ascontiguousarray(fields[:, totals(fields) > -np.inf])


def padded(fields: Ints, width: int) -> Ints:
    """[FIELDS, ``width``]: filled up with empty places."""
    whole = np.repeat(DEAD, width, axis=1)
    whole[:, : fields.shape[1]] = fields
    return whole


def mix(a: Ints, b: Ints) -> Ints:
    """A 64-bit hash of pairs, elementwise (after splitmix64, Steele et al. 2014)."""
    return mix_in(a, spread(b))


def spread(b: Ints) -> NDArray[np.uint64]:
    """The first half of :func:`mix`, which needs only ``b``."""
    x = b.astype(np.uint64)
    x += np.uint64(1)
    x *= _A
    return x


def mix_in(a: Ints, x: NDArray[np.uint64]) -> Ints:
    """The second half of :func:`mix`; overwrites ``x``."""
    x ^= a.view(np.uint64)
    x ^= x >> _U30
    x *= _B
    x ^= x >> _U27
    x *= _C
    x ^= x >> _U31
    mixed: Ints = x.view(np.int64)
    return mixed
