"""The beam search beside other arithmetic on whole sentences: the CTC forward algorithm, and flashlight-text."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.contract.manifest import Packed
from streamer.tasks.transcribe.beam import Beam
from streamer.tasks.transcribe.lexicon import Lexicon, parse
from streamer.tasks.transcribe.options import Decoder
from streamer.tasks.transcribe.task import decode_all
from tests.tasks.test_beam import EXACT, PHONES, hypotheses, options
from tests.tasks.world import task

SCORE = 0.4
#: One way to say each, and no doubled phones: flashlight-text 0.0.7 hears "B C C" in B C C C where "B C" is a word too,
#: without a blank between the two.
WORDS = "V\tA B\nX\tA B C\nY\tC A\nZ\tC B A\n"
WAYS = {line.split("\t")[0]: [PHONES.index(p) for p in line.split("\t")[1].split()] for line in WORDS.splitlines()}


def recording(rng: np.random.Generator) -> tuple[str, NDArray[np.float32]]:
    """Four words, and [T, V] of them: each phone one or two steps long with up to two blanks before it, and noise."""
    words = rng.choice(list(WAYS), 4).tolist()
    path: list[int] = []
    for phone in (phone for word in words for phone in WAYS[word]):
        apart = 1 if path and path[-1] == phone else 0
        path += [0] * int(rng.integers(apart, 3)) + [phone] * int(rng.integers(1, 3))
    path.append(0)
    logits = rng.normal(size=(len(path), len(PHONES)))
    logits[np.arange(len(path)), path] += rng.uniform(2, 5, len(path))
    logp = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return " ".join(words), np.asarray(logp, np.float32)


def forward(logp: NDArray[np.float32], tokens: list[int]) -> float:
    """log p(tokens): the forward variables of Graves et al. 2006, equations 5 to 8."""
    labels = [0]
    for token in tokens:
        labels += [token, 0]
    alpha = np.full(len(labels), -np.inf)
    alpha[:2] = logp[0, labels[:2]]
    for row in logp[1:].astype(np.float64):
        before = alpha.copy()
        for s, label in enumerate(labels):
            ways = [before[s], *before[s - 1 : s][:1]]
            if s > 1 and label and label != labels[s - 2]:
                ways.append(before[s - 2])
            alpha[s] = np.logaddexp.reduce(ways) + row[label]
    return float(np.logaddexp(alpha[-1], alpha[-2]))


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_the_forward_algorithm(seed: int) -> None:
    said, logp = recording(np.random.default_rng(seed))
    lexicon = Lexicon(parse(WORDS, PHONES), len(PHONES), None, None)
    found = hypotheses(Beam(Decoder(**EXACT), lexicon, None, 0), logp, lexicon)
    assert tuple(said.split()) in found
    for words in sorted(found, key=lambda w: found[w])[-10:]:
        assert math.log(found[words]) == pytest.approx(forward(logp, [p for w in words for p in WAYS[w]]), abs=1e-3)


def reference(recordings: list[NDArray[np.float32]]) -> list[str]:
    """Best words without a language model: paths are added, words cost ``SCORE``, "|" is the optional silence."""
    decoder = pytest.importorskip("flashlight.lib.text.decoder", reason="flashlight-text is not installed")
    trie, names = decoder.Trie(len(PHONES), 1), list(WAYS)
    for index, word in enumerate(names):
        trie.insert(WAYS[word], index, 0.0)
    settings = decoder.LexiconDecoderOptions(
        beam_size=200,
        beam_size_token=len(PHONES),
        beam_threshold=1e6,
        lm_weight=0.0,
        word_score=SCORE,
        unk_score=-np.inf,
        sil_score=0.0,
        log_add=True,
        criterion_type=decoder.CriterionType.CTC,
    )
    lm = decoder.ZeroLM()
    search = decoder.LexiconDecoder(settings, trie, lm, 1, 0, -1, [], False)
    best = []
    for logp in recordings:
        result = search.decode(logp.ctypes.data, len(logp), len(PHONES))[0]
        best.append(" ".join(names[word] for word in result.words if word >= 0))
    return best


def test_what_was_said_is_found_no_less_often_than_by_flashlight() -> None:
    """The two do not mean the same by a hypothesis, so both are held to the truth."""
    rng = np.random.default_rng(3)
    said, recordings = zip(*(recording(rng) for _ in range(40)), strict=True)
    exact = EXACT | {"beam": 200, "boundary": "|", "word_score": SCORE}
    beam = task(options(lm=False) | {"lexicon": Packed.pack(WORDS.encode()).model_dump(), "decoder": exact})
    ours = decode_all(beam, recordings, {"endpoint": {"silence": None, "trailing": None}})
    right = sum(a == b for a, b in zip(ours, said, strict=True))
    assert right >= max(20, sum(a == b for a, b in zip(reference(list(recordings)), said, strict=True)))
