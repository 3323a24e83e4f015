"""CTC prefix beam search with a lexicon and an n-gram model, for many streams at once.

Prefix search as in Graves & Jaitly 2014 and Hannun et al. 2014 (arXiv 1408.2873): a hypothesis is a prefix with the
log-probability of its paths that end in blank and of those that don't. Here a prefix is (words so far, node in the
lexicon's tree, last token), and paths that reach the same prefix are added. A word that ends is taken both ways: as
ended, and as going on where the tree does.

One stream's beam is an int64 array [fields, beam] (floats as their bits), best hypothesis first. A step works on flat
lists of candidates of all streams. Every number of a stream comes from element-wise operations and stable sorts, so
it does not depend on the company. Steps that are almost surely blank only move all paths into "ends in blank"; the
factor that all hypotheses would share is left out, which is why the result does not depend on where a chunk ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.tasks.transcribe import history
from streamer.tasks.transcribe.candidates import (
    DEAD,
    FIELDS,
    HASH,
    HIST,
    LAST,
    LM,
    NODE,
    PB,
    PN,
    START_HASH,
    Ended,
    Extender,
    added,
    logadd,
)
from streamer.tasks.transcribe.lexicon import Lexicon
from streamer.tasks.transcribe.ngram import NGram
from streamer.tasks.transcribe.options import Decoder
from streamer.tasks.transcribe.search import Steps, Unit

__all__ = ["Beam", "BeamState"]

#: No entry in a table of words has this number.
NOBODY = history.NONE - 1


@dataclass(slots=True, eq=False)
class BeamState:
    """One stream: ``beam`` [FIELDS, B] and the table of words behind it (:mod:`streamer.tasks.transcribe.history`).

    For partials, remembered as long as the table is not swept: ``told``, the entry whose words were asked for last;
    ``chain`` and ``units``, the entries before it and itself, and their words; ``shared``, how many of them all
    hypotheses have in common.
    """

    beam: NDArray[np.int64]
    words: NDArray[np.int64]
    told: int = NOBODY
    chain: list[int] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    shared: int = 0

    def forget(self) -> None:
        """The numbers of the table's entries hold no more."""
        self.told, self.chain, self.units, self.shared = NOBODY, [], [], 0


class Beam:
    """Shared by all streams with the same settings; a :class:`streamer.tasks.transcribe.search.Search`."""

    def __init__(self, settings: Decoder, lexicon: Lexicon, lm: NGram | None, blank: int) -> None:
        self._settings, self._lexicon, self._lm, self._blank = settings, lexicon, lm, blank
        self._skip = np.float32(np.log(settings.blank_skip)) if settings.blank_skip > 0 else np.float32(-np.inf)
        self._extender = Extender(settings, lexicon, lm, blank)
        #: Entries at which the table of words is swept: far above what a beam can reach by itself.
        self._sweep_at = 32 * settings.beam + 256

    def open(self) -> BeamState:
        return BeamState(self._fresh.copy(), np.zeros((0, len(history.COLUMNS)), np.int64))

    @cached_property
    def _fresh(self) -> NDArray[np.int64]:
        beam = np.repeat(DEAD, self._settings.beam, axis=1)
        beam[PB, 0] = 0  # the bits of 0.0: the empty prefix has probability 1
        beam[HASH], beam[LAST] = START_HASH, self._blank
        beam[LM] = 0 if self._lm is None else self._lm.begin
        return beam

    def weigh(self, logp: NDArray[np.float32]) -> NDArray[np.float32]:
        return logp  # penalties are part of the scores

    def busy(self, logp: NDArray[np.float32]) -> NDArray[np.bool_]:
        if self._settings.blank_skip >= 1:
            return np.ones(logp.shape[:2], np.bool_)
        return logp[:, :, self._blank] <= self._skip

    def advance(
        self, states: Sequence[BeamState], logp: NDArray[np.float32], begin: Steps, end: Steps, origin: Steps
    ) -> None:
        at = np.arange(logp.shape[1])
        busy = self.busy(logp) & (at >= begin[:, None]) & (at < end[:, None])
        many = busy.sum(axis=1)
        rows = np.argsort(-many, kind="stable")  # the busiest first: those that take part in a turn are the first n
        many = many[rows]
        steps = np.argsort(~busy[rows], axis=1, kind="stable")  # row i's busy steps first, in order
        beams = np.stack([states[row].beam for row in rows.tolist()], axis=1)
        total = _totals(beams)
        entries = np.array([len(states[row].words) for row in rows.tolist()], np.int64)
        scores = self._extender.scores(logp)
        ended: list[Ended] = []
        before = begin[rows] - 1  # the last step that each row has taken
        for turn in range(int(many.max(initial=0))):
            n = int(np.count_nonzero(many > turn))
            now = steps[:n, turn]
            given = scores.at(rows[:n], now)
            gap = now > before[:n] + 1
            before[:n] = now
            words = self._extender.step(beams, total, given, gap, origin[rows[:n]] + now, entries)
            if len(words.row):
                entries += np.bincount(words.row, minlength=len(entries))
                ended.append(words)
        self._extender.rest(beams, total, end[rows] - 1 > before)
        self._keep([states[row] for row in rows.tolist()], beams, ended)

    def _keep(self, states: Sequence[BeamState], beams: NDArray[np.int64], ended: list[Ended]) -> None:
        """Beams and new words back to their streams."""
        for row, state in enumerate(states):
            state.beam[:] = beams[:, row]
        if not ended:
            return
        rows = np.concatenate([words.row for words in ended])
        table = np.concatenate([words.table for words in ended])
        order = np.argsort(rows, kind="stable")
        edges = np.searchsorted(rows[order], np.arange(len(states) + 1)).tolist()
        table = table[order]
        for state, first, last in zip(states, edges, edges[1:], strict=False):
            if first < last:
                state.words = np.concatenate([state.words, table[first:last]])
                if len(state.words) > self._sweep_at:
                    state.words, state.beam[HIST] = history.sweep(state.words, state.beam[HIST])
                    state.forget()

    def decoded(self, state: BeamState) -> bool:
        return bool(state.beam[HIST, 0] != history.NONE)

    def news(self, state: BeamState) -> bool:
        return bool(state.beam[HIST, 0] != state.told)

    def units(self, state: BeamState) -> list[Unit]:
        """The whole words of the best hypothesis."""
        state.told = int(state.beam[HIST, 0])
        same, new = history.beyond(state.words, state.told, state.chain)
        state.chain[same:] = new
        state.units[same:] = history.units(state.words, new, self._lexicon.words)
        return state.units

    def stable(self, state: BeamState) -> int:
        """Words that all hypotheses share. Once they do, all that come after do."""
        if self.news(state):
            self.units(state)
        entries = set(state.beam[HIST, _totals(state.beam) > -np.inf].tolist())
        state.shared = history.common(state.words, entries, state.chain, state.shared)
        return state.shared

    def finish(self, state: BeamState) -> list[Unit]:
        """The best hypothesis that ends with a whole word; if there is none, the whole words of the best."""
        totals = _totals(state.beam)
        whole = ((state.beam[NODE] == 0) & (totals > -np.inf)).nonzero()[0]
        entry = int(state.beam[HIST, 0])
        if len(whole):
            beam = state.beam[:, whole]
            together = added(totals[whole], beam[HASH])  # the same words with another last token
            if self._lm is not None and self._settings.sentence_end:
                end, _ = self._lm.score(beam[LM], np.full(len(whole), self._lm.end))
                together += self._settings.lm_weight * end
            entry = int(beam[HIST, together.argmax()])
        units = history.trace(state.words, entry, self._lexicon.words)
        state.beam[:] = self._fresh
        state.words = state.words[:0].copy()
        state.forget()
        return units

    def cut(self, state: BeamState) -> list[Unit]:
        """The whole words of the best hypothesis. Those that go on from the same words live on, without them."""
        entry = int(state.beam[HIST, 0])
        if entry == history.NONE:
            return []
        units = history.trace(state.words, entry, self._lexicon.words)
        same = (state.beam[HIST] == entry) | (state.beam[HASH] == state.beam[HASH, 0])
        same &= _totals(state.beam) > -np.inf
        kept = state.beam[:, same]
        state.beam[:] = self._fresh
        state.beam[[PB]] = np.float64(-np.inf).view(np.int64)
        state.beam[:, : kept.shape[1]] = kept
        state.beam[HIST] = history.NONE
        if self._settings.merge == "history":
            state.beam[HASH] = START_HASH
        state.words = state.words[:0].copy()
        state.forget()
        return units

    def dump(self, state: BeamState) -> tuple[dict[str, Any], list[NDArray[Any]]]:
        words, entries = history.sweep(state.words, state.beam[HIST])
        beam = state.beam.copy()
        beam[HIST] = entries
        return {}, [beam, words]

    def restore(self, facts: dict[str, Any], arrays: list[NDArray[Any]]) -> BeamState:
        if [a.dtype.str for a in arrays] != ["<i8", "<i8"] or arrays[0].shape != (FIELDS, self._settings.beam):
            raise ValueError("not a memory of this decoder")
        beam, words = arrays
        limits = {NODE: len(self._lexicon.leaf), LAST: self._lexicon.children.shape[1], HIST: len(words)}
        limits[LM] = 1 if self._lm is None else self._lm.contexts
        inside = all((beam[f] >= (-1 if f == HIST else 0)).all() and (beam[f] < top).all() for f, top in limits.items())
        tree = words.ndim == 2 and words.shape[1] == 5 and (words[:, 0] < np.arange(len(words))).all()
        if not inside or not tree or (words[:, 0] < -1).any() or not _numbers(words[:, 1], len(self._lexicon.words)):
            raise ValueError("not a memory of this decoder")
        return BeamState(beam, words)


def _totals(beam: NDArray[np.int64]) -> NDArray[np.float64]:
    floats = beam.view(np.float64)
    return logadd(floats[PB], floats[PN])


def _numbers(values: NDArray[np.int64], top: int) -> bool:
    return bool(((values >= 0) & (values < top)).all())
