"""One step of the prefix beam search: all extensions of all hypotheses of all streams, merged and cut back to the beam.

Shapes: ``n`` streams, ``H`` hypotheses of all of them, ``V`` tokens. Candidates above the threshold form a flat list
``[C]`` in three parts: hypotheses that stay, those that go on inside a word, and words that end. A stream's result does
not depend on the batch: within a part the order of its candidates does not depend on other streams, numbers come from
element-wise operations and from sums over its own candidates, and ties are broken by that order.

A trained model's posteriors are sharp: a step has a dozen candidates, not thousands, and its cost is the number of
NumPy calls. Therefore everything that does not depend on the hypotheses is computed once for all steps
(:meth:`Extender.turns`), only live hypotheses are considered, and the three parts are slices instead of masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.tasks.transcribe.hotwords import LanguageModel
from streamer.tasks.transcribe.hypotheses import (
    DONE,
    FLOOR,
    HASH,
    HIST,
    IMPOSSIBLE,
    LAST,
    LM,
    NODE,
    PB,
    PEAK,
    PN,
    START,
    START_HASH,
    TOKENS,
    Bools,
    Floats,
    Hypotheses,
    Ints,
    logadd,
    mix,
    mix_in,
    spread,
    sums,
)
from streamer.tasks.transcribe.lexicon import Lexicon
from streamer.tasks.transcribe.options import Decoder

__all__ = ["Ended", "Extender", "Turn"]

#: Upper bound (nats) on how far the sum of merged paths may lie above the best single candidate.
SLACK = 8.0
#: From this many candidates on, a first search for duplicates by part of their keys pays.
MANY = 200
#: Up to this many candidates and streams one 64-bit number holds stream, score and place.
PLACES, STREAMS = 1 << 16, 1 << 15


@dataclass(slots=True)
class Ended:
    """Words that ended in one step: streams [W], hypotheses [FIELDS, W], word numbers and last steps [W]."""

    row: Ints
    fields: Ints
    word: Ints
    step: Ints


@dataclass(slots=True)
class Turn:
    """The part of one step of ``n`` streams that does not depend on their hypotheses.

    ``step`` [n]: its number in each stream. ``gap`` [n]: whether skipped blank steps lie before it, ``None``: for no
    stream. ``posterior`` [n * V]: log-posteriors, not below :data:`FLOOR`. ``blank`` [n]: score of the blank. Tokens
    probable enough to extend a hypothesis [P], by stream: ``row``, ``token`` and its score ``gain``.
    """

    step: Ints
    gap: Bools | None
    posterior: Floats
    blank: Floats
    row: Ints
    token: Ints
    gain: Floats


class Extender:
    """Computes the steps of the search; shared by all streams with the same settings."""

    def __init__(self, settings: Decoder, lexicon: Lexicon, lm: LanguageModel | None, blank: int) -> None:
        self._settings, self._lexicon, self._lm, self._blank = settings, lexicon, lm, blank
        self._least = max(FLOOR, np.log(settings.token_threshold) if settings.token_threshold > 0 else FLOOR)
        self._children = lexicon.children.ravel()
        self._goes_on = ~lexicon.leaf
        self._homophones = bool((lexicon.count > 1).any())  # some words sound alike
        self._count, self._lm_word = lexicon.count, lexicon.lm_word
        #: The word that ends at each node; meaningless where none ends.
        self._word = lexicon.ends.take(np.minimum(lexicon.first, max(0, len(lexicon.ends) - 1)))
        self._spread = spread(np.arange(len(lexicon.words)))
        #: Look-ahead by node, with a last element for index -1, "no node".
        self._ahead = np.append(settings.lm_weight * lexicon.ahead, -np.inf)
        self._vocabulary = lexicon.children.shape[1]
        self._span = settings.beam_threshold + SLACK
        self._fractions = (2**32 - 1) / self._span

    def turns(self, logp: NDArray[np.float32], counts: Sequence[int], steps: Ints, gaps: Bools) -> Iterator[Turn]:
        """Yield the turns in order. Turn *i* takes the next ``counts[i]`` rows of log-posteriors ``logp`` [K, V],
        ``steps`` [K] and ``gaps`` [K]."""
        s = self._settings
        posterior = np.maximum(logp.astype(np.float64), FLOOR)
        gain = s.acoustic_scale * posterior
        gain[:, self._blank] -= s.acoustic_scale * s.blank_penalty
        tried = posterior > self._least
        tried[:, self._blank] = False
        if tried.shape[1] > s.max_tokens and (tried.sum(axis=1) > s.max_tokens).any():
            others = posterior.copy()
            others[:, self._blank] = -np.inf
            tried &= posterior >= np.partition(others, -s.max_tokens, axis=1)[:, -s.max_tokens, None]
        row, token = tried.nonzero()
        gains = gain[row, token]
        blank = gain[:, self._blank].copy()
        ends = np.cumsum(counts)
        pairs = row.searchsorted(ends).tolist()
        begin = first = 0
        for end, last in zip(ends.tolist(), pairs, strict=True):
            here, of = slice(begin, end), slice(first, last)
            gap = gaps[here]
            yield Turn(
                steps[here],
                gap if np.count_nonzero(gap) else None,
                posterior[here].reshape(-1),
                blank[here],
                row[of] - begin,
                token[of],
                gains[of],
            )
            begin, first = end, last

    def step(self, hyps: Hypotheses, turn: Turn, known: int) -> tuple[Hypotheses, Ended | None]:
        """The hypotheses after one more step, and the words that ended in it (``None`` if no word did). Overwrites
        ``hyps``.

        The words that ended are numbered from ``known`` on across all streams; hypotheses refer to them by number.
        """
        threshold, size = self._settings.beam_threshold, self._vocabulary
        fields, total, row = hyps.fields, hyps.total, hyps.row
        values = fields.view(np.float64)
        if turn.gap is not None:
            rest(values, total, turn.gap.take(row))

        # Hypotheses that stay: log p of ending in blank, in the last token, and in either.
        last, node = fields[LAST], fields[NODE]
        peak = turn.posterior.take(row * size + last)
        np.maximum(values[PEAK], peak, out=values[PEAK])
        blank = total + turn.blank.take(row)
        if self._settings.acoustic_scale != 1.0:
            peak *= self._settings.acoustic_scale
        peak += values[PN]
        renewed, stay = peak, logadd(blank, peak, possible=True)
        best = np.maximum.reduceat(stay, hyps.begin)
        # Where hypotheses that stay fill the beam, a candidate that is worse than all of them is dropped.
        worst: Floats | float = IMPOSSIBLE
        if np.count_nonzero(full := hyps.count == self._settings.beam):
            worst = np.where(full, np.minimum.reduceat(stay, hyps.begin), IMPOSSIBLE)

        # Hypotheses extended by a token, in order of tokens.
        counts = hyps.count.take(turn.row)
        pair = _counting(len(counts)).repeat(counts)
        shift = hyps.begin.take(turn.row)
        shift -= counts.cumsum() - counts
        source = _counting(len(pair)) + shift.take(pair)
        token, before = turn.token.take(pair), node.take(source)
        child = self._children.take(before * size + token)
        again = last.take(source) == token  # the same token twice needs a blank between
        score = np.where(again, values[PB].take(source), total.take(source))
        score += turn.gain.take(pair)
        score += self._ahead.take(child) - self._ahead.take(before)
        pair_row = turn.row.take(pair)
        np.maximum.at(best, pair_row, score)
        passing = _where(score > np.maximum(best - threshold, worst).take(pair_row))
        source, token, child, score, pair_row = (
            source.take(passing), token.take(passing), child.take(passing), score.take(passing), pair_row.take(passing),
        )  # fmt: skip

        # Words that end with this token, one candidate for each homophone.
        count = self._count.take(child)
        if self._homophones:
            ends = _counting(len(count)).repeat(count)
            word = self._lexicon.first.take(child)
            word -= count.cumsum() - count
            word = self._lexicon.ends.take(word.take(ends) + _counting(len(ends)))
            ended_at = child.take(ends)
        else:
            ends = _where(count)
            ended_at = child.take(ends)
            word = self._word.take(ended_at)
        word_score = score.take(ends)
        word_score += self._settings.word_score
        word_row = pair_row.take(ends)
        lm = fields[LM].take(source.take(ends))
        if self._lm is not None:
            logp, lm = self._lm.score(lm, self._lm_word.take(word))
            logp *= self._settings.lm_weight
            logp -= self._ahead.take(ended_at)
            word_score += logp
        np.maximum.at(best, word_row, word_score)

        # New hypotheses: copies of their sources with updated fields; the three parts are slices.
        continues = self._goes_on.take(child)
        floor = np.maximum(best - threshold, worst)
        while True:
            staying = _where(stay >= floor.take(row))
            going = _where(continues & (score >= floor.take(pair_row)))
            kept = _where(word_score >= floor.take(word_row))
            origin = np.concatenate([staying, source.take(going), source.take(ends.take(kept))])
            origin_row = row.take(origin)
            survives = np.zeros(len(best), np.bool_)
            survives[origin_row] = True
            if np.count_nonzero(survives) == len(survives):
                break
            # In streams without survivors, the best score was of a path that can only end a word, and the word scored
            # too low. There the floor is measured from the best candidate that may survive.
            best = np.where(survives, best, np.maximum.reduceat(stay, hyps.begin))
            np.maximum.at(best, pair_row, np.where(continues, score, IMPOSSIBLE))
            np.maximum.at(best, word_row, word_score)
            floor = np.where(survives, floor, np.maximum(best - threshold, worst))
        ends, word, source, row = ends.take(kept), word.take(kept), origin, origin_row
        moved, ended = len(staying), len(staying) + len(going)
        new = fields.take(source, axis=1)
        values = new.view(np.float64)
        values[DONE, moved:] += values[PEAK, moved:]
        new[TOKENS, moved:] += 1
        first = _where(new[NODE, moved:] == 0)
        if len(first):
            first += moved
            values[DONE].put(first, 0.0)
            new[TOKENS].put(first, 1)
            new[START].put(first, turn.step.take(row.take(first)))
        new[NODE, moved:ended], new[NODE, ended:] = child.take(going), 0
        new[LAST, moved:ended], new[LAST, ended:] = token.take(going), token.take(ends)
        values[PEAK, moved:] = turn.posterior.take(row[moved:] * size + new[LAST, moved:])
        new[LM, ended:] = lm = lm.take(kept)
        new[HASH, ended:] = self._identity(new[HASH, ended:], word, lm)
        values[PB, :moved], values[PB, moved:] = blank.take(staying), -np.inf
        values[PN, :moved], values[PN, moved:ended] = renewed.take(staying), score.take(going)
        values[PN, ended:] = word_score.take(kept)
        total = values[PN].copy()
        total[:moved] = stay.take(staying)

        marks = row << 48
        heads = self._merge(new, total, marks)
        chosen, row, count = self._select(heads, total, row, marks, best)
        fields = new.take(chosen, axis=1)
        hyps = Hypotheses(fields, total.take(chosen), row, count, count.cumsum() - count)
        at = _where(chosen >= ended)
        if not len(at):
            return hyps, None
        word_row, nth = row.take(at), chosen.take(at)
        words = Ended(word_row, new.take(nth, axis=1), word.take(nth - ended), turn.step.take(word_row))
        fields[HIST].put(at, np.arange(known, known + len(at)))
        return hyps, words

    def _identity(self, before: Ints, word: Ints, lm: Ints) -> Ints:
        """Hashes [W] after new words: of all words so far or of the LM states, as the setting ``merge`` says."""
        if self._settings.merge == "history":
            return mix_in(before, self._spread.take(word))
        return mix(np.full(len(lm), START_HASH), lm)

    # -- the new beam ----------------------------------------------------------------------------------------------

    def _merge(self, new: Ints, score: Floats, marks: Ints) -> Ints:
        """Add up the paths to each prefix in its likeliest candidate. Returns the indexes of these, in order.

        At most one of a prefix's candidates is a hypothesis that stays, and only that one has paths ending in blank.
        ``marks`` [C]: the stream's number in the upper 16 bits.
        """
        key = new[NODE] * self._vocabulary
        key += new[LAST]
        key *= np.int64(0x1E3779B97F4A7C15)
        key += new[HASH]
        key += marks
        if len(key) < MANY:
            order = np.lexsort((-score, key))  # the likeliest leads its group
        else:
            some = _repeated(key)
            if not len(some):
                return _counting(len(key))
            order = some.take(np.lexsort((-score.take(some), key.take(some))))
        ordered = key.take(order)
        leads = np.empty(len(order), np.bool_)
        leads[:1] = True
        np.not_equal(ordered[1:], ordered[:-1], out=leads[1:])
        begin = _where(leads)
        if len(begin) == len(order):
            return _counting(len(key))
        head = order.take(begin)
        values = new.view(np.float64)
        in_blank = np.maximum.reduceat(values[PB].take(order), begin)
        in_token = sums(values[PN].take(order), begin, leads.cumsum() - 1)
        values[PB].put(head, in_blank)
        values[PN].put(head, in_token)
        score.put(head, logadd(in_blank, in_token, possible=True))
        if len(order) == len(key):
            head.sort()
            return head
        alone = np.ones(len(key), np.bool_)
        alone.put(order, leads)
        return _where(alone)

    def _select(self, heads: Ints, score: Floats, row: Ints, marks: Ints, best: Floats) -> tuple[Ints, Ints, Ints]:
        """Select the best candidates of each stream, best first: their indexes, their streams, each stream's count.

        Scores are compared as 32-bit fractions of the range that the threshold allows.
        """
        row = row.take(heads)
        below = (best + SLACK).take(row)
        below -= score.take(heads)
        np.maximum(below, 0.0, out=below)
        np.minimum(below, self._span, out=below)
        below *= self._fractions
        if len(heads) <= PLACES and len(best) <= STREAMS:
            key = below.astype(np.int64)
            key <<= 16
            key += marks.take(heads)
            key += _counting(len(heads))
            key.sort()
            row, order = key >> 48, key & (PLACES - 1)
        else:
            order = np.lexsort((below.astype(np.int64), row))
            row = row.take(order)
        count = np.bincount(row, minlength=len(best))
        width = self._settings.beam
        if np.count_nonzero(count > width):
            rank = np.arange(len(row))
            rank -= (count.cumsum() - count).take(row)
            within = _where(rank < width)
            order, row = order.take(within), row.take(within)
            np.minimum(count, width, out=count)
        return heads.take(order), row, count


def rest(values: Floats, total: Floats, which: Bools) -> None:
    """Apply skipped blank steps: all paths of the hypotheses ``which`` [H] of ``values`` [FIELDS, H] now end in
    blank."""
    np.copyto(values[PB], total, where=which)
    np.copyto(values[PN], -np.inf, where=which)


_NUMBERS = np.arange(4096)
_NUMBERS.flags.writeable = False


def _counting(n: int) -> Ints:
    """0 to ``n`` - 1; read-only."""
    return _NUMBERS[:n] if n <= len(_NUMBERS) else np.arange(n)


def _where(which: NDArray[np.generic]) -> Ints:
    return which.nonzero()[0]


def _repeated(keys: Ints) -> Ints:
    """Indexes, in order, of all keys that occur more than once, and of a few others."""
    places = np.int64((1 << 24) - 1)
    if len(keys) > places:
        return np.arange(len(keys))
    marked = keys & ~places
    marked |= _counting(len(keys))
    marked.sort()
    part = marked >> 24
    repeats = _where(part[1:] == part[:-1])
    which = np.zeros(len(keys), np.bool_)
    which[marked.take(repeats) & places] = which[marked.take(repeats + 1) & places] = True
    return _where(which)
