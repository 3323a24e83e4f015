"""Edit distance, greedy decoding, bootstrap, batched log-probabilities, words by the daemon's decoder."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.speech import decoding
from models.speech.acoustic import Acoustic, AcousticConfig, whole
from models.speech.data import TOKENS, Utterance, encode
from models.speech.tune import descend
from models.training.score import bootstrap, edits, greedy, log_probs, token_error

WORDS = st.lists(st.sampled_from("abc"), max_size=7)


@given(WORDS, WORDS)
def test_edit_distance(a: list[str], b: list[str]) -> None:
    distance = edits(a, b)
    assert distance == edits(b, a)
    assert abs(len(a) - len(b)) <= distance <= max(len(a), len(b))
    assert (distance == 0) == (a == b)
    assert edits(a, [*b, "c"]) <= distance + 1


def test_greedy_collapses_repeats_and_drops_blanks() -> None:
    path = [0, 1, 1, 0, 1, 2, 2]
    assert greedy(np.eye(3, dtype=np.float32)[path], ["<blank>", "x", "y"]) == ["x", "x", "y"]


def test_bootstrap_contains_the_rate_and_knows_speakers() -> None:
    low, high = bootstrap([1, 0, 2, 1] * 10, [4] * 40, [f"s{i % 8}" for i in range(40)])
    assert low <= 0.25 <= high
    assert bootstrap([1], [2], ["only"]) == (0.5, 0.5)


def model() -> Acoustic:
    torch.manual_seed(0)
    config = AcousticConfig("wavenet", 8000, len(TOKENS), bands=12, front=8, channels=8, skip=8, dilations=(1,))
    return Acoustic(config).eval()


def test_log_probs_are_those_of_each_recording_alone() -> None:
    net, rng = model(), np.random.default_rng(0)
    recordings = [rng.integers(-9000, 9000, n).astype(np.int16) for n in (5000, 900, 12000)]
    rows = log_probs(net, recordings, flush=0.2, seconds=2.0)
    for pcm, row in zip(recordings, rows, strict=True):
        padded = np.concatenate([pcm, np.zeros(1600 + net.hop, np.int16)])
        steps = -(-(len(pcm) + 1600) // net.hop)
        alone = whole(net, torch.from_numpy(padded[: steps * net.hop])[None])[0]
        assert row.shape == alone.shape
        assert np.abs(row - alone.numpy()).max() < 1e-4


def test_token_error_counts() -> None:
    net = model()
    with torch.no_grad():
        net.head.weight.zero_()
        net.head.bias.zero_()
        net.head.bias[TOKENS.index("AA")] = 5.0  # says AA, once and for ever
    silent = Utterance("", "s", "A", [["AA", "B"]], 0, np.zeros(8000, np.int16))
    aa, b = encode(["AA", "B"])
    assert token_error(net, [silent, silent], [[aa, b], [aa]]) == 1 / 3
    assert token_error(net, [silent], [[b]]) == 1.0


def test_words_by_the_daemons_decoder() -> None:
    info = {"name": "x", "licence": "none", "hop": 320, "sample_rate": 8000, "tokens": ["<blank>", "S", "IY", "M"]}
    task = decoding.transcriber(info, b"SEA\tS IY\nME\tM IY\n", None, {"kind": "beam"})
    rows = np.log(np.eye(4, dtype=np.float32)[[0, 1, 2, 0, 3, 2, 0]] * 0.96 + 0.01)
    texts = decoding.decode_all(task, [rows])
    said = [Utterance("", "s", "SEA ME", [], 0), Utterance("", "s", "SEA SEA", [], 0)]
    assert texts == ["SEA ME"]
    result = decoding.score(said, ["sea me", "sea"])
    assert result.rate == 0.25
    assert "4 words" in str(result)


def test_descent_finds_the_valley_and_stays_on_the_grid() -> None:
    asked: list[dict[str, float]] = []

    def error(at: dict[str, float]) -> float:
        asked.append(at)
        return (at["a"] - 3) ** 2 + (at["b"] + 1) ** 2 + 0.5 * (at["a"] - 3) * (at["b"] + 1)

    grid = {"a": (0.0, 1.0, 2.0, 3.0, 4.0), "b": (-2.0, -1.0, 0.0)}
    best, least = descend(error, {"a": 0.0, "b": 0.0}, grid)
    assert best == {"a": 3.0, "b": -1.0}
    assert least == 0
    assert all(at["a"] in grid["a"] and at["b"] in grid["b"] for at in asked)
