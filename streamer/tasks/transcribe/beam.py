"""CTC prefix beam search with a lexicon and an n-gram model, for many streams at once.

Prefix search as in Graves & Jaitly 2014 and Hannun et al. 2014 (arXiv 1408.2873): a hypothesis is a prefix with the
log-probability of its paths that end in blank and of those that don't. Here a prefix is (words so far, node in the
lexicon's tree, last token), and paths that reach the same prefix are added. Where a word ends, one hypothesis ends it,
and where the tree goes on, another one continues with a longer word.

A step works on flat lists of hypotheses and candidates of all streams. Every number of a stream comes from element-wise
operations and stable sorts, so it does not depend on the other streams. A step that is almost surely blank only moves
all paths into "ends in blank". The factor that all hypotheses would share is left out, so the result does not depend on
where a chunk ends. Streams need not be at the same step: a turn takes every stream's next step that is not skipped as
blank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.tasks.transcribe.candidates import Ended, Extender, rest
from streamer.tasks.transcribe.history import LOGP, NONE, WordHistory
from streamer.tasks.transcribe.hotwords import LanguageModel
from streamer.tasks.transcribe.hypotheses import (
    DONE,
    FIELDS,
    HASH,
    HIST,
    LAST,
    LM,
    NODE,
    PEAK,
    PN,
    START,
    START_HASH,
    TOKENS,
    Hypotheses,
    added,
    alive,
    padded,
    totals,
)
from streamer.tasks.transcribe.lexicon import Lexicon
from streamer.tasks.transcribe.options import Decoder
from streamer.tasks.transcribe.search import Checks, Steps, Unit

__all__ = ["Beam", "BeamState"]

#: Differs from the number of every entry in a table of words, and from ``NONE``.
UNREPORTED = NONE - 1
#: Words that are not yet stored in their stream's table are numbered from here on; no table is that long.
NEW = 1 << 40


@dataclass(slots=True, eq=False)
class BeamState:
    """One stream: its live hypotheses ``beam`` [FIELDS, at most B], best first, and their ``words``.

    ``resting``: the last steps were skipped as blank, and the beam does not yet reflect it. ``head``: the word entry of
    the best hypothesis. A cache for partials, valid until the words are swept: ``reported``, the entry whose words were
    returned last; ``chain`` and ``units``, the entries up to and including it, and their words; ``shared``, the number
    of entries that all hypotheses have in common.
    """

    beam: NDArray[np.int64]
    words: WordHistory = field(default_factory=WordHistory)
    resting: bool = False
    head: int = NONE
    reported: int = UNREPORTED
    chain: list[int] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    shared: int = 0

    def begin(self, beam: NDArray[np.int64], words: WordHistory) -> None:
        """Replace hypotheses and words; entry numbers in the cache become invalid."""
        self.beam, self.words, self.head = beam, words, int(beam[HIST, 0])
        self.reported, self.chain, self.units, self.shared = UNREPORTED, [], [], 0

    def rest(self) -> None:
        """Apply the skipped blank steps to the beam."""
        if self.resting:
            rest(self.beam.view(np.float64), totals(self.beam), np.ones(self.beam.shape[1], np.bool_))
            self.resting = False


@dataclass(slots=True)
class Done:
    """Results of turns that are not yet stored in the streams. ``beams``: fields and counts of the streams without
    further turns, the later ones first. ``words``: the words that ended; ``count``: their number. New entries are
    numbered from :data:`NEW` on until :meth:`settle` gives them their numbers.
    """

    beams: list[list[NDArray[np.int64]]] = field(default_factory=list)
    words: list[Ended] = field(default_factory=list)
    count: int = 0

    def add(self, words: Ended) -> None:
        self.words.append(words)
        self.count += len(words.row)

    def settle(self, states: Sequence[BeamState], hyps: Hypotheses) -> None:
        """Store all results; ``hyps`` belong to the first streams, ``beams`` to those after them."""
        parts = [(hyps.fields, hyps.count), *reversed(self.beams)]
        fields = np.concatenate([part for part, _ in parts], axis=1)
        ends = np.concatenate([count for _, count in parts]).cumsum().tolist()
        self.beams.clear()
        if self.words:
            self._store_words(states, fields[HIST])
        begin = 0
        for state, end, head in zip(states, ends, fields[HIST].take([0, *ends[:-1]]).tolist(), strict=False):
            state.beam, state.head, begin = fields[:, begin:end].copy(), head, end

    def _store_words(self, states: Sequence[BeamState], entries: NDArray[np.int64]) -> None:
        """Append new words to their streams' tables and renumber ``entries`` that point to them."""
        row = np.concatenate([words.row for words in self.words])
        order = row.argsort(kind="stable")
        edges = row.take(order).searchsorted(np.arange(len(states) + 1))
        before = np.array([len(state.words) for state in states], np.int64)
        number = np.empty(len(row), np.int64)
        number[order] = np.arange(len(row)) + (before - edges[:-1]).take(row.take(order))
        fields = np.concatenate([words.fields for words in self.words], axis=1).take(order, axis=1)
        for pointing in (fields[HIST], entries):
            new = (pointing >= NEW).nonzero()[0]
            pointing.put(new, number.take(pointing.take(new) - NEW))
        links = np.empty((len(row), LOGP), np.int64)
        links[:, 0] = fields[HIST]
        links[:, 1] = np.concatenate([words.word for words in self.words]).take(order)
        links[:, 2] = fields[START]
        links[:, 3] = np.concatenate([words.step for words in self.words]).take(order)
        values = fields.view(np.float64)
        means = (values[DONE] + values[PEAK]) / fields[TOKENS]
        marks = edges.tolist()
        for state, first, last in zip(states, marks, marks[1:], strict=False):
            if first < last:
                state.words.extend(links[first:last], means[first:last])
        self.words.clear()
        self.count = 0


class Beam:
    """Shared by all streams with the same settings; a :class:`streamer.tasks.transcribe.search.Search`."""

    def __init__(self, settings: Decoder, lexicon: Lexicon, lm: LanguageModel | None, blank: int) -> None:
        self._settings, self._lexicon, self._lm, self._blank = settings, lexicon, lm, blank
        self._skip = np.float32(np.log(settings.blank_skip)) if settings.blank_skip > 0 else np.float32(-np.inf)
        self._extender = Extender(settings, lexicon, lm, blank)
        #: Number of entries at which a table of words is swept; a beam refers to far fewer.
        self._sweep_at = 32 * settings.beam + 256
        #: The empty prefix, which has probability 1.
        self._empty = np.zeros((FIELDS, 1), np.int64)
        self._empty.view(np.float64)[PN] = -np.inf
        self._empty[HASH], self._empty[LAST], self._empty[HIST] = START_HASH, blank, NONE
        self._empty[LM] = 0 if lm is None else lm.begin

    def open(self) -> BeamState:
        return BeamState(self._empty.copy())

    def weigh(self, logp: NDArray[np.float32]) -> NDArray[np.float32]:
        return logp  # the extender applies the penalties

    def busy(self, logp: NDArray[np.float32]) -> NDArray[np.bool_]:
        if self._settings.blank_skip >= 1:
            return np.ones(logp.shape[:2], np.bool_)
        return logp[:, :, self._blank] <= self._skip

    def advance(
        self, states: Sequence[BeamState], logp: NDArray[np.float32], end: Steps, origin: Steps, checks: Checks
    ) -> None:
        within = np.arange(logp.shape[1]) < end[:, None]
        busy = self.busy(logp) & within
        many = busy.sum(axis=1)
        order = np.argsort(-many, kind="stable")  # the busiest first: the first n streams take part in a turn
        many = many[order]
        turn, place = (np.arange(int(many.max(initial=0)))[:, None] < many).nonzero()
        if len(turn):
            self._turns(states, logp, busy[order], order, turn, place, origin, checks)
        last = np.where(busy, np.arange(logp.shape[1]), -1).max(axis=1, initial=-1)
        for row in ((end > 0) & (last < end - 1)).nonzero()[0].tolist():
            states[row].resting = True
        for row in (checks.due < end).nonzero()[0].tolist():
            while checks.due[row] < end[row]:
                checks.ask(row)

    def _turns(
        self,
        states: Sequence[BeamState],
        logp: NDArray[np.float32],
        busy: NDArray[np.bool_],
        order: Steps,
        turn: Steps,
        place: Steps,
        origin: Steps,
        checks: Checks,
    ) -> None:
        """Run the busy steps. Streams are in ``order``, as in ``busy`` [N, T]; ``place[k]`` takes part in
        ``turn[k]``."""
        counts = np.bincount(turn).tolist()
        row = order[place]
        steps = np.argsort(~busy, axis=1, kind="stable")  # each stream's busy steps first, in order
        step = steps[place, turn]
        active = [states[i] for i in order[: counts[0]].tolist()]
        resting = np.array([state.resting for state in active])
        before = np.where(turn > 0, steps[place, turn - 1], -1)  # the busy step before
        gaps = (step > before + 1) | ((turn == 0) & resting[place])
        hyps = Hypotheses.of([state.beam for state in active])
        done = Done()
        due, first = checks.due, 0
        ending = set(turn[due[row] < step].tolist())  # turns before which a stream may have ended
        turns = self._extender.turns(logp[row, step], counts, origin[row] + step, gaps)
        for number, (n, inputs) in enumerate(zip(counts, turns, strict=True)):
            if n < len(hyps.count):
                hyps, *others = hyps.split(n)
                done.beams.append(others)
            here, first = slice(first, first + n), first + n
            if number in ending:
                done.settle(active, hyps)
                for i in (due[row[here]] < step[here]).nonzero()[0].tolist():
                    while due[row[i]] < step[here][i]:
                        checks.ask(int(row[i]))
                hyps = Hypotheses.of([state.beam for state in active[:n]])
            hyps, words = self._extender.step(hyps, inputs, NEW + done.count)
            if words is not None:
                done.add(words)
        done.settle(active, hyps)
        for state in active:
            state.resting = False
            if len(state.words) > self._sweep_at:
                table, state.beam[HIST] = state.words.swept(state.beam[HIST])
                state.begin(state.beam, WordHistory.of(table))

    def decoded(self, state: BeamState) -> bool:
        return state.head != NONE

    def news(self, state: BeamState) -> bool:
        return state.head != state.reported

    def units(self, state: BeamState) -> list[Unit]:
        """The whole words of the best hypothesis."""
        state.reported = state.head
        same, new = state.words.beyond(state.reported, state.chain)
        state.chain = state.chain[:same] + new
        state.units = state.units[:same] + state.words.units(new, self._lexicon.words)
        return state.units

    def stable(self, state: BeamState) -> int:
        """The number of words that all hypotheses share; their later extensions share them too."""
        if self.news(state):
            self.units(state)
        state.shared = state.words.common(set(state.beam[HIST].tolist()), state.chain, state.shared)
        return state.shared

    def copy(self, state: BeamState) -> BeamState:
        # The copy shares the words, which only grow, and the lists, which are replaced.
        return replace(state, beam=state.beam.copy())

    def finish(self, state: BeamState) -> list[Unit]:
        """The words of the best hypothesis that ends with a whole word, else the whole words of the best one."""
        whole = (state.beam[NODE] == 0).nonzero()[0]
        entry = state.head
        if len(whole) == 1:
            entry = int(state.beam[HIST, whole[0]])
        elif len(whole):
            beam = state.beam[:, whole]
            together = added(totals(beam), beam[HASH])  # the same words with another last token
            if self._lm is not None and self._settings.sentence_end:
                end, _ = self._lm.score(beam[LM], np.full(len(whole), self._lm.end))
                together += self._settings.lm_weight * end
            entry = int(beam[HIST, together.argmax()])
        units = state.words.trace(entry, self._lexicon.words)
        state.begin(self._empty.copy(), WordHistory())
        return units

    def cut(self, state: BeamState) -> list[Unit]:
        """The whole words of the best hypothesis. Hypotheses with the same words survive, with these words removed.

        A surviving hypothesis may have ended these words earlier than the best one and begun its next word before they
        end. Reported words keep their times, so the start of such a word is moved after them.
        """
        entry = state.head
        if entry == NONE:
            return []
        units = state.words.trace(entry, self._lexicon.words)
        same = (state.beam[HIST] == entry) | (state.beam[HASH] == state.beam[HASH, 0])
        kept = np.ascontiguousarray(state.beam[:, same])
        kept[START] = np.maximum(kept[START], units[-1].end + 1)
        kept[HIST] = NONE
        if self._settings.merge == "history":
            kept[HASH] = START_HASH
        state.begin(kept, WordHistory())
        return units

    def dump(self, state: BeamState) -> tuple[dict[str, Any], list[NDArray[Any]]]:
        state.rest()
        words, entries = state.words.swept(state.beam[HIST])
        beam = padded(state.beam, self._settings.beam)
        beam[HIST, : len(entries)] = entries
        return {}, [beam, words]

    def restore(self, facts: dict[str, Any], arrays: list[NDArray[Any]]) -> BeamState:
        if [a.dtype.str for a in arrays] != ["<i8", "<i8"] or arrays[0].shape != (FIELDS, self._settings.beam):
            raise ValueError("not a memory of this decoder")
        beam, words = alive(arrays[0]), arrays[1]
        limits = {NODE: len(self._lexicon.leaf), LAST: self._lexicon.children.shape[1], HIST: len(words)}
        limits[LM] = 1 if self._lm is None else self._lm.contexts
        inside = all((beam[f] >= (-1 if f == HIST else 0)).all() and (beam[f] < top).all() for f, top in limits.items())
        tree = words.ndim == 2 and words.shape[1] == 5 and (words[:, 0] < np.arange(len(words))).all()
        if not inside or not tree or (words[:, 0] < -1).any() or not _within(words[:, 1], len(self._lexicon.words)):
            raise ValueError("not a memory of this decoder")
        state = BeamState(beam)
        state.begin(beam if beam.shape[1] else self._empty.copy(), WordHistory.of(words))
        return state


def _within(values: NDArray[np.int64], top: int) -> bool:
    """Whether all values are from 0 to ``top`` - 1."""
    return bool(((values >= 0) & (values < top)).all())
