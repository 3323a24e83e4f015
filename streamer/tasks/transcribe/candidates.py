"""One step of the prefix beam search: all extensions of all hypotheses of all streams, merged and cut back to the beam.

Shapes: ``n`` streams, ``B`` hypotheses, ``V`` tokens. What survives the first look is a flat list of candidates ``[C]``
in three parts: hypotheses that stay, those that go on inside a word, words that end. Within a part the order of a
stream's candidates does not depend on other streams, numbers come from element-wise operations and from sums
over the stream's own candidates, and all sorts are stable: ties fall the same way in any company.

What decides the cost is how many candidates there are and how many NumPy calls a step takes, so: candidates far below
the best are dropped before anything is looked up for them, the three parts are slices instead of masks, and sorts are
by 16-bit keys, which NumPy sorts by radix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.tasks.transcribe.lexicon import Lexicon
from streamer.tasks.transcribe.ngram import NGram
from streamer.tasks.transcribe.options import Decoder

__all__ = [
    "DEAD",
    "FIELDS",
    "HASH",
    "HIST",
    "LAST",
    "LM",
    "NODE",
    "PB",
    "PN",
    "START_HASH",
    "Ended",
    "Extender",
    "added",
    "logadd",
]

#: Fields of a hypothesis. Floats: log p of its paths ending in blank, not ending in blank; sum of the log-posterior
#: peaks of the word's earlier tokens; peak of its last token. Integers: hash of the words (or of the LM state), tree
#: node, last token, LM state, entry in the table of words, step at which the word began, number of the word's tokens.
PB, PN, DONE, PEAK, HASH, NODE, LAST, LM, HIST, START, TOKENS = range(11)
FIELDS = 11
START_HASH = 0x2545F4914F6CDD1D
#: A log-probability below this is as good as impossible; it keeps sums finite and exact whatever the model says.
FLOOR = -1000.0
#: Below all that a stream can reach, above what a dead hypothesis has.
IMPOSSIBLE = -1e300
#: By how much the sum of paths that meet may lie above the best candidate before: far more than it can.
SLACK = 8.0

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: A place in the beam that nobody has, [FIELDS, 1].
DEAD: Ints = np.zeros((FIELDS, 1), np.int64)
DEAD[[PB, PN]] = np.float64(-np.inf).view(np.int64)
DEAD[HIST] = -1


def logadd(a: Floats, b: Floats) -> Floats:
    """``log(exp(a) + exp(b))``, elementwise: ``np.logaddexp`` by functions that NumPy runs five times as fast."""
    high = np.maximum(a, b)
    apart = np.minimum(a, b) - np.maximum(high, IMPOSSIBLE)  # never inf - inf
    return np.asarray(high + np.log1p(np.exp(apart)))


def added(scores: Floats, keys: Ints) -> Floats:
    """Each score [M] together with all others of the same key."""
    order = keys.argsort(kind="stable")
    ordered = keys.take(order)
    begins = np.append(True, ordered[1:] != ordered[:-1])
    group = begins.cumsum() - 1
    sums = np.empty(len(keys))
    sums[order] = _sums(scores.take(order), _where(begins), group).take(group)
    return sums


@dataclass(slots=True)
class Ended:
    """Words that ended in this step: their streams [W] and their entries [W, 5] in the tables of words."""

    row: Ints
    table: Ints


@dataclass(slots=True)
class Scores:
    """What a batch's log-posteriors [n, T, V] are worth, made once for all steps.

    ``posterior`` itself, not below :data:`FLOOR`; ``gain``: scaled, the blank with its penalty; ``tried``: tokens that
    are probable enough to extend a hypothesis.
    """

    posterior: Floats
    gain: Floats
    tried: Bools

    def at(self, rows: Ints, steps: Ints) -> Scores:
        """One step of every row: [rows, V]."""
        return Scores(self.posterior[rows, steps], self.gain[rows, steps], self.tried[rows, steps])


@dataclass(slots=True)
class Going:
    """Hypotheses with a new token [E]: place in the flat beams, token, node that it leads to, log p."""

    source: Ints
    token: Ints
    node: Ints
    score: Floats

    def only(self, which: Bools) -> Going:
        at = _where(which)
        return Going(self.source[at], self.token[at], self.node[at], self.score[at])


@dataclass(slots=True)
class Words:
    """Words that end [W]: place in the flat beams, token, word, language-model state after it, log p."""

    source: Ints
    token: Ints
    word: Ints
    lm: Ints
    score: Floats

    def only(self, which: Bools) -> Words:
        at = _where(which)
        return Words(self.source[at], self.token[at], self.word[at], self.lm[at], self.score[at])


class Extender:
    def __init__(self, settings: Decoder, lexicon: Lexicon, lm: NGram | None, blank: int) -> None:
        self._settings, self._lexicon, self._lm, self._blank = settings, lexicon, lm, blank
        self._least = max(FLOOR, np.log(settings.token_threshold) if settings.token_threshold > 0 else FLOOR)
        self._children = lexicon.children.ravel()
        self._goes_on = ~lexicon.leaf
        #: Its last element is that of the node that is none.
        self._ahead = np.append(settings.lm_weight * lexicon.ahead, -np.inf)
        self._vocabulary = lexicon.children.shape[1]

    def scores(self, logp: NDArray[np.float32]) -> Scores:
        s = self._settings
        posterior = np.maximum(logp.astype(np.float64), FLOOR)
        gain = s.acoustic_scale * posterior
        gain[..., self._blank] -= s.acoustic_scale * s.blank_penalty
        tried = posterior > self._least
        tried[..., self._blank] = False
        if tried.shape[2] > s.max_tokens and (tried.sum(axis=2) > s.max_tokens).any():
            others = posterior.copy()
            others[..., self._blank] = -np.inf
            tried &= posterior >= np.partition(others, -s.max_tokens, axis=2)[..., -s.max_tokens, None]
        return Scores(posterior, gain, tried)

    def rest(self, beams: Ints, total: Floats, rows: Bools) -> None:
        """Blank steps were skipped in ``rows`` [n]: all their paths now end in blank. For ``beams``, ``total`` see
        :meth:`step`.
        """
        floats = beams.view(np.float64)
        np.copyto(floats[PB], total, where=rows[:, None])
        np.copyto(floats[PN], -np.inf, where=rows[:, None])

    def step(self, beams: Ints, total: Floats, given: Scores, gap: Bools, now: Ints, entries: Ints) -> Ended:
        """One more step for the first ``n`` streams of ``beams`` [FIELDS, N, B], in place, best hypothesis first.

        ``total`` [N, B]: log p of all paths of a hypothesis, kept beside. ``given``: the step's scores [n, V]. ``gap``
        [n]: skipped blank steps lie before this one. ``now`` [n]: its number. ``entries`` [n]: words in the table so
        far.
        """
        n, width = len(now), beams.shape[2]
        flat = beams.reshape(FIELDS, -1)
        if gap.any():
            self.rest(beams[:, :n], total[:n], gap)
        stay_b, stay_n, stay = self._stay(beams[:, :n], total[:n], given)
        best = np.maximum.reduce(stay, axis=1)
        # A full beam of hypotheses that stay is enough: what is worse than all of them has no chance.
        worst = np.minimum.reduce(stay, axis=1)
        going = self._going(flat, total[:n], given, best, worst)
        words = self._words(flat, going, width, best)
        floor = np.maximum(np.maximum(best - self._settings.beam_threshold, worst), IMPOSSIBLE)
        going = going.only(self._goes_on.take(going.node) & (going.score >= floor.take(going.source // width)))
        words = words.only(words.score >= floor.take(words.source // width))
        staying = _where((stay >= floor[:, None]).reshape(-1))

        # Hypotheses to be: copies of where they come from, with what is new; the parts are slices.
        source = np.concatenate([staying, going.source, words.source])
        row = source // width
        new = flat.take(source, axis=1)
        values = new.view(np.float64)
        moved, ended = len(staying), len(staying) + len(going.source)
        first = _where(new[NODE, moved:] == 0) + moved
        values[DONE, moved:] += values[PEAK, moved:]
        values[DONE, first] = 0.0
        new[TOKENS, moved:] += 1
        new[TOKENS, first] = 1
        new[START, first] = now[row[first]]
        new[NODE, moved:ended], new[NODE, ended:] = going.node, 0
        new[LAST, moved:ended], new[LAST, ended:] = going.token, words.token
        values[PEAK, moved:] = given.posterior[row[moved:], new[LAST, moved:]]
        new[LM, ended:] = words.lm
        new[HASH, ended:] = self._identity(new[HASH, ended:], words)
        values[PB, :moved], values[PB, moved:] = stay_b.take(staying), -np.inf
        values[PN, :moved], values[PN, moved:ended] = stay_n.take(staying), going.score
        values[PN, ended:] = words.score
        score = values[PN].copy()
        score[:moved] = stay.take(staying)

        heads = self._merge(new, score, row)
        chosen, row, place = self._select(heads, score, row, best, width)
        kept = new.take(chosen, axis=1)
        table = self._table(kept, words.word, chosen - ended, row, now, entries)
        flat[:, : n * width] = DEAD
        flat[:, place] = kept
        total[:n] = -np.inf
        total.reshape(-1)[place] = score.take(chosen)
        return table

    # -- candidates
    # ------------------------------------------------------------------------------------------------------

    def _stay(self, beams: Ints, total: Floats, given: Scores) -> tuple[Floats, Floats, Floats]:
        """Hypotheses without a new token [n, B]: log p of ending in blank, in the last token, and in either."""
        floats = beams.view(np.float64)
        peak = given.posterior[np.arange(len(total))[:, None], beams[LAST]]
        np.maximum(floats[PEAK], peak, out=floats[PEAK])
        blank = total + given.gain[:, self._blank, None]
        renewed = floats[PN] + self._settings.acoustic_scale * peak
        return blank, renewed, logadd(blank, renewed)

    def _going(self, flat: Ints, total: Floats, given: Scores, best: Floats, worst: Floats) -> Going:
        """Hypotheses with a new token. Raises ``best`` [n] to the best of them; ``worst`` [n]: scores not wanted."""
        width, threshold = total.shape[1], self._settings.beam_threshold
        row, token = given.tried.nonzero()  # P pairs
        gain = given.gain[row, token]
        # no look-ahead rises inside a word, so this bounds the score from above
        bound = total[row] + gain[:, None]  # [P, B]
        at = _where((bound > np.maximum(best - threshold, worst)[row, None]).reshape(-1))
        pair = at // width
        row = row.take(pair)
        source, token = row * width + (at - pair * width), token.take(pair)
        before = flat[NODE].take(source)
        node = self._children.take(before * self._vocabulary + token).astype(np.int64)
        score = bound.take(at)
        again = _where(flat[LAST].take(source) == token)  # the same token twice needs a blank between
        score[again] = flat[PB].view(np.float64).take(source[again]) + gain.take(pair[again])
        score += self._ahead[node] - self._ahead.take(before)
        np.maximum.at(best, row, score)
        return Going(source, token, node, score).only(score > np.maximum(best - threshold, worst).take(row))

    def _words(self, flat: Ints, going: Going, width: int, best: Floats) -> Words:
        """Those whose new token ends a word, once for every word that sounds like it. Raises ``best``, too."""
        count = self._lexicon.count.take(going.node)
        each = np.arange(len(count)).repeat(count)
        nth = np.arange(len(each)) - (count.cumsum() - count).take(each)
        source, node = going.source.take(each), going.node.take(each)
        word = self._lexicon.ends.take(self._lexicon.first.take(node) + nth)
        lm = flat[LM].take(source)
        score = going.score.take(each) + self._settings.word_score
        if self._lm is not None:
            logp, lm = self._lm.score(lm, self._lexicon.lm_word.take(word))
            score += self._settings.lm_weight * logp - self._ahead.take(node)
        np.maximum.at(best, source // width, score)
        return Words(source, going.token.take(each), word, lm, score)

    def _identity(self, before: Ints, words: Words) -> Ints:
        if self._settings.merge == "history":
            return _mix(before, words.word)
        return _mix(np.full(len(words.lm), START_HASH), words.lm)

    # -- the new beam
    # ----------------------------------------------------------------------------------------------------

    def _merge(self, new: Ints, score: Floats, row: Ints) -> Ints:
        """Paths to the same prefix are added up in the likeliest of its candidates; these, in order.

        Of the candidates for a prefix one at most is a hypothesis that stays, and only that has paths ending in blank.
        """
        key = new[HASH] + (new[NODE] * self._vocabulary + new[LAST]) * np.int64(0x1E3779B97F4A7C15) + (row << 48)
        everybody = np.arange(len(key))
        # Equal keys have equal 16 bits: sorting by these is cheap, and leaves few to be compared in full.
        order, repeats = _repeats((key >> 32).astype(np.uint16))
        if not len(repeats):
            return everybody
        alike = np.zeros(len(key), np.bool_)
        alike[order.take(repeats)] = alike[order.take(repeats - 1)] = True
        some = _where(alike)
        some = some.take((-score.take(some)).argsort(kind="stable"))  # so that the likeliest leads its group
        order, repeats = _repeats(key.take(some))
        if not len(repeats):
            return everybody
        member = some.take(order)
        leads = np.zeros(len(some), np.bool_)
        leads[repeats] = True
        np.logical_not(leads, out=leads)
        begin = _where(leads)
        head = member.take(begin)
        values = new.view(np.float64)
        values[PB, head] = np.maximum.reduceat(values[PB].take(member), begin)
        values[PN, head] = _sums(values[PN].take(member), begin, leads.cumsum() - 1)
        score[head] = logadd(values[PB].take(head), values[PN].take(head))
        alike[:] = True
        alike[member.take(repeats)] = False
        return _where(alike)

    def _select(self, heads: Ints, score: Floats, row: Ints, best: Floats, width: int) -> tuple[Ints, Ints, Ints]:
        """The best ``B`` of each stream, best first: candidates, their streams, their places in the flat beams.

        Scores are compared as 32-bit fractions of the range that the threshold allows.
        """
        row = row.take(heads)
        span = self._settings.beam_threshold + SLACK
        below = np.maximum((best + SLACK).take(row) - score.take(heads), 0.0)
        fraction = (np.minimum(below, span) * ((2**32 - 1) / span)).astype(np.uint32)
        order = fraction.astype(np.uint16).argsort(kind="stable")
        order = order.take((fraction >> np.uint32(16)).astype(np.uint16).take(order).argsort(kind="stable"))
        order = order.take(row.astype(np.uint16).take(order).argsort(kind="stable"))
        row = row.take(order)
        count = np.bincount(row, minlength=len(best))
        rank = np.arange(len(row)) - (count.cumsum() - count).take(row)
        if count.max() > width:
            within = _where(rank < width)
            order, row, rank = order.take(within), row.take(within), rank.take(within)
        return heads.take(order), row, row * width + rank

    @staticmethod
    def _table(kept: Ints, word: Ints, nth: Ints, row: Ints, now: Ints, entries: Ints) -> Ended:
        """Entries for the words that end; ``nth`` [R] of ``word``, negative for none. Their hypotheses point there."""
        at = _where(nth >= 0)
        row = row.take(at)
        ended = kept.take(at, axis=1)
        values = ended.view(np.float64)
        table = np.empty((len(at), 5), np.int64)
        table[:, 0], table[:, 1] = ended[HIST], word.take(nth.take(at))
        table[:, 2], table[:, 3] = ended[START], now.take(row)
        table.view(np.float64)[:, 4] = (values[DONE] + values[PEAK]) / ended[TOKENS]
        kept[HIST, at] = entries.take(row) + np.arange(len(row)) - row.searchsorted(row)
        return Ended(row, table)


def _where(which: Bools) -> Ints:
    return which.nonzero()[0]


def _repeats(keys: NDArray[np.generic]) -> tuple[Ints, Ints]:
    """The stable order of ``keys``, and which places in it repeat the one before."""
    order = keys.argsort(kind="stable")
    ordered = keys.take(order)
    return order, _where(ordered[1:] == ordered[:-1]) + 1


def _sums(values: Floats, begin: Ints, group: Ints) -> Floats:
    """``log(sum(exp))`` of each group; groups are neighbours and ``begin`` at these places."""
    top = np.maximum.reduceat(values, begin)
    scaled = np.exp(values - np.maximum(top, IMPOSSIBLE).take(group))
    return np.asarray(top + np.log(np.maximum(np.add.reduceat(scaled, begin), 1.0)))


def _mix(a: Ints, b: Ints) -> Ints:
    """A 64-bit hash of pairs, elementwise (after splitmix64, Steele et al. 2014)."""
    x = a.astype(np.uint64) ^ ((b.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Ints = (x ^ (x >> np.uint64(31))).view(np.int64)
    return mixed
