"""One step of the prefix beam search: all extensions of all hypotheses of all streams, merged and cut back to the beam.

Shapes: ``n`` streams, ``B`` hypotheses, ``V`` tokens; candidates are flat lists, each with its stream (``row``) and
the hypothesis it comes from (``source``). Order within a stream never depends on other streams, and all sorts are
stable: ties fall the same way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.tasks.lexicon import Lexicon
from streamer.tasks.ngram import NGram
from streamer.tasks.options import Decoder

__all__ = ["FIELDS", "HASH", "HIST", "LAST", "LM", "NODE", "PB", "PN", "START_HASH", "Ended", "Extender"]

#: Fields of a hypothesis. Floats: log p of its paths ending in blank, not ending in blank; sum of the log-posterior
#: peaks of the word's earlier tokens; peak of its last token. Integers: hash of the words (or of the LM state), tree
#: node, last token, LM state, entry in the table of words, step at which the word began, number of the word's tokens.
PB, PN, DONE, PEAK, HASH, NODE, LAST, LM, HIST, START, TOKENS = range(11)
FIELDS = 11
START_HASH = 0x2545F4914F6CDD1D
#: A log-probability below this is as good as impossible; it keeps sums finite and exact whatever the model says.
FLOOR = -1000.0

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(slots=True)
class Ended:
    """Words that ended in this step: their streams [W] and their entries [W, 5] in the tables of words."""

    row: Ints
    table: Ints


@dataclass(slots=True)
class Candidates:
    """Flat lists [C]. ``token`` is -1 where a hypothesis just stays, ``word`` is -1 where none ends."""

    row: Ints
    source: Ints
    token: Ints
    word: Ints
    node: Ints
    last: Ints
    hash: Ints
    lm: Ints
    pb: Floats
    pn: Floats


class Extender:
    def __init__(self, settings: Decoder, lexicon: Lexicon, lm: NGram | None, blank: int) -> None:
        self._settings, self._lexicon, self._lm, self._blank = settings, lexicon, lm, blank
        self._least = np.log(settings.token_threshold) if settings.token_threshold > 0 else -np.inf
        self._ahead = settings.lm_weight * lexicon.ahead

    def rest(self, beams: Ints, rows: NDArray[np.bool_]) -> None:
        """Blank steps were skipped in ``rows`` [n]: all paths of ``beams`` [n, FIELDS, B] now end in blank."""
        floats = beams.view(np.float64)
        total = np.logaddexp(floats[:, PB], floats[:, PN])
        floats[:, PB] = np.where(rows[:, None], total, floats[:, PB])
        floats[:, PN] = np.where(rows[:, None], -np.inf, floats[:, PN])

    def step(
        self, beams: Ints, logp: NDArray[np.float32], gap: NDArray[np.bool_], now: Ints, entries: Ints
    ) -> tuple[Ints, Ended]:
        """``beams`` [n, FIELDS, B] after one more row of log-posteriors ``logp`` [n, V], best first.

        ``gap`` [n]: skipped blank steps lie before this one. ``now`` [n]: its number. ``entries`` [n]: words in the
        table so far.
        """
        if gap.any():
            self.rest(beams, gap)
        posterior = np.maximum(logp.astype(np.float64), FLOOR)
        floats = beams.view(np.float64)
        last_posterior = np.take_along_axis(posterior, beams[:, LAST], axis=1)
        found = self._candidates(beams, floats, posterior, last_posterior)
        np.maximum(floats[:, PEAK], last_posterior, out=floats[:, PEAK])
        pb, pn, origin, alive = _merge(found, len(beams))
        return self._select(beams, found, posterior, pb, pn, origin, alive, now, entries)

    # -- candidates
    # ------------------------------------------------------------------------------------------------------

    def _candidates(self, beams: Ints, floats: Floats, posterior: Floats, last_posterior: Floats) -> Candidates:
        s = self._settings
        total = np.logaddexp(floats[:, PB], floats[:, PN])
        stay_b = total + s.acoustic_scale * (posterior[:, self._blank, None] - s.blank_penalty)
        stay_n = floats[:, PN] + s.acoustic_scale * last_posterior
        stay = np.maximum(stay_b, stay_n)

        row, token = np.nonzero(self._tried(posterior))  # P pairs
        node = beams[row, NODE]  # [P, B]
        following = self._lexicon.children[node, token[:, None]]
        again = beams[row, LAST] == token[:, None]  # the same token twice needs a blank between
        score = np.where(again, floats[row, PB], total[row]) + s.acoustic_scale * posterior[row, token, None]
        score += self._ahead[following] - self._ahead[node]
        score[following < 0] = -np.inf
        best = stay.max(axis=1)
        np.maximum.at(best, row, score.max(axis=1, initial=-np.inf))
        floor = best - s.beam_threshold

        e_pair, e_source = np.nonzero(score > floor[row, None])
        e_row, e_token = row[e_pair], token[e_pair]
        e_node = following[e_pair, e_source].astype(np.int64)
        e_score = score[e_pair, e_source]
        words = self._ends(beams, e_row, e_source, e_token, e_node, e_score)
        go_on = ~self._lexicon.leaf[e_node]
        e_row, e_source, e_token, e_node = e_row[go_on], e_source[go_on], e_token[go_on], e_node[go_on]

        s_row, s_source = np.nonzero(stay > floor[:, None])
        none = np.full(len(s_row) + len(e_row), -1)
        c_row, c_source = np.concatenate([s_row, e_row]), np.concatenate([s_source, e_source])
        return Candidates(
            row=np.concatenate([c_row, words.row]),
            source=np.concatenate([c_source, words.source]),
            token=np.concatenate([none[: len(s_row)], e_token, words.token]),
            word=np.concatenate([none, words.word]),
            node=np.concatenate([beams[s_row, NODE, s_source], e_node, words.node]),
            last=np.concatenate([beams[s_row, LAST, s_source], e_token, words.last]),
            hash=np.concatenate([beams[c_row, HASH, c_source], words.hash]),
            lm=np.concatenate([beams[c_row, LM, c_source], words.lm]),
            pb=np.concatenate([stay_b[s_row, s_source], np.full(len(e_row), -np.inf), words.pb]),
            pn=np.concatenate([stay_n[s_row, s_source], e_score[go_on], words.pn]),
        )

    def _tried(self, posterior: Floats) -> NDArray[np.bool_]:
        """Which tokens [n, V] are probable enough to be tried."""
        tried = posterior > max(self._least, FLOOR)
        tried[:, self._blank] = False
        most = self._settings.max_tokens
        if tried.shape[1] > most and (tried.sum(axis=1) > most).any():
            others = posterior.copy()
            others[:, self._blank] = -np.inf
            tried &= posterior >= np.partition(others, -most, axis=1)[:, -most, None]
        return tried

    def _ends(self, beams: Ints, row: Ints, source: Ints, token: Ints, node: Ints, score: Floats) -> Candidates:
        """Candidates whose last token ends a word, once for every word that sounds like it."""
        count = self._lexicon.count[node]
        each = np.repeat(np.arange(len(node)), count)
        nth = np.arange(len(each)) - np.repeat(np.cumsum(count) - count, count)
        row, source, token, node, score = row[each], source[each], token[each], node[each], score[each]
        word = self._lexicon.ends[self._lexicon.first[node] + nth]
        lm = beams[row, LM, source]
        pn = score + self._settings.word_score
        if self._lm is not None:
            logp, lm = self._lm.score(lm, self._lexicon.lm_word[word])
            pn = pn + (self._settings.lm_weight * logp - self._ahead[node])
        if self._settings.merge == "history":
            identity = _mix(beams[row, HASH, source], word)
        else:
            identity = _mix(np.full(len(lm), START_HASH), lm)
        nothing = np.full(len(row), -np.inf)
        return Candidates(row, source, token, word, np.zeros_like(node), token, identity, lm, nothing, pn)

    # -- the new beam
    # ----------------------------------------------------------------------------------------------------

    def _select(
        self,
        beams: Ints,
        found: Candidates,
        posterior: Floats,
        pb: Floats,
        pn: Floats,
        origin: Ints,
        alive: Ints,
        now: Ints,
        entries: Ints,
    ) -> tuple[Ints, Ended]:
        """The best ``B`` of each stream; with what is known of them from the likeliest way there (``origin``)."""
        n, _, width = beams.shape
        total = np.logaddexp(pb[alive], pn[alive])
        alive = alive[np.argsort(-total, kind="stable")]
        small = np.int16 if n < 2**15 else np.int64  # int16 is sorted by radix
        alive = alive[np.argsort(found.row[alive].astype(small), kind="stable")]
        row = found.row[alive]
        rank = np.arange(len(row)) - np.searchsorted(row, np.arange(n))[row]
        alive, row, rank = alive[rank < width], row[rank < width], rank[rank < width]
        way = origin[alive]
        source, token, word = found.source[way], found.token[way], found.word[way]

        old = beams[row, :, source]  # [R, FIELDS]
        new = old.copy()
        values, before = new.view(np.float64), old.view(np.float64)
        values[:, PB], values[:, PN] = pb[alive], pn[alive]
        new[:, NODE], new[:, LAST] = found.node[way], found.last[way]
        new[:, HASH], new[:, LM] = found.hash[way], found.lm[way]
        moved = token >= 0
        first = moved & (old[:, NODE] == 0)
        new[:, START] = np.where(first, now[row], old[:, START])
        new[:, TOKENS] = np.where(first, 1, old[:, TOKENS] + moved)
        values[:, DONE] = np.where(moved, np.where(first, 0.0, before[:, DONE] + before[:, PEAK]), before[:, DONE])
        values[:, PEAK] = np.where(moved, posterior[row, token], before[:, PEAK])

        is_word = word >= 0
        w_row = row[is_word]
        nth = np.arange(len(w_row)) - np.searchsorted(w_row, np.arange(n))[w_row]
        table = np.empty((len(w_row), 5), np.int64)
        table[:, 0], table[:, 1] = old[is_word, HIST], word[is_word]
        table[:, 2], table[:, 3] = new[is_word, START], now[w_row]
        mean = (values[is_word, DONE] + values[is_word, PEAK]) / new[is_word, TOKENS]
        table[:, 4] = mean.view(np.int64)
        new[is_word, HIST] = entries[w_row] + nth

        result = np.zeros_like(beams)
        result[:, [PB, PN]] = np.float64(-np.inf).view(np.int64)
        result[:, HIST] = -1
        result[row, :, rank] = new
        return result, Ended(w_row, table)


def _merge(found: Candidates, n: int) -> tuple[Floats, Floats, Ints, Ints]:
    """Paths to the same prefix are added.

    Returns ``pb``, ``pn`` and ``origin`` [C] (the likeliest member of the group that a candidate heads) and the
    heads, in order.
    """
    key = _mix(_mix(found.hash, found.node), found.last) + found.row * np.int64(0x9E3779B97F4A7C1)
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    repeats = np.flatnonzero(ordered[1:] == ordered[:-1]) + 1
    origin = np.arange(len(key))
    if not len(repeats):
        return found.pb, found.pn, origin, origin
    pb, pn = found.pb.copy(), found.pn.copy()
    likeliest = np.maximum(pb, pn)
    alive = np.ones(len(key), np.bool_)
    alive[order[repeats]] = False
    begins = np.ones(len(key), np.bool_)
    begins[repeats] = False
    head = np.maximum.accumulate(np.where(begins, origin, 0))[repeats]
    place = repeats - head
    for nth in range(1, int(place.max()) + 1):  # mostly once: the stay of a prefix and its renewal
        at = place == nth
        into, other = order[head[at]], order[repeats[at]]
        pb[into] = np.logaddexp(pb[into], pb[other])
        pn[into] = np.logaddexp(pn[into], pn[other])
        better = likeliest[other] > likeliest[into]
        origin[into[better]] = other[better]
        likeliest[into] = np.maximum(likeliest[into], likeliest[other])
    return pb, pn, origin, np.flatnonzero(alive)


def _mix(a: Ints, b: Ints) -> Ints:
    """A 64-bit hash of pairs, elementwise (after splitmix64, Steele et al. 2014)."""
    x = a.astype(np.uint64) ^ ((b.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Ints = (x ^ (x >> np.uint64(31))).view(np.int64)
    return mixed
