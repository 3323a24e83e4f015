"""The transducer: its loss against every path, its search against a plain one, training to a judged file and words."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from export.build import build
from models.speech.data import Utterance
from models.speech.mixture import UtteranceSource
from models.training import checkpoint
from models.training.budget import Budget
from models.zoo.speech import transducer_digits
from models.zoo.speech.digit_strings import HOP, INFO, RATE, DigitPool, joined, score, spell
from models.zoo.speech.lattice import transducer_loss
from models.zoo.speech.listener import ListenerConfig
from models.zoo.speech.transducer import Transducer, TransducerConfig
from streamer.engine.model import Model
from streamer.engine.stepper import Stepper
from streamer.tasks import create
from tests.models.laws import assert_close, check_company, check_state, chunked, settle

pytestmark = pytest.mark.long


def by_every_path(log_probs: Tensor, symbols: list[int]) -> Tensor:
    """The likelihood of ``symbols`` summed over all ways to put them into the frames. ``log_probs`` [T, U + 1, V]."""
    frames, total = log_probs.shape[0], []
    moves = frames - 1 + len(symbols)  # the last blank comes on top
    for places in combinations(range(moves), len(symbols)):
        t, u, score = 0, 0, torch.zeros((), dtype=log_probs.dtype)
        for move in range(moves):
            if move in places:
                score, u = score + log_probs[t, u, symbols[u]], u + 1
            else:
                score, t = score + log_probs[t, u, 0], t + 1
        total.append(score + log_probs[t, u, 0])
    return -torch.stack(total).logsumexp(0)


def lattice(frames: int, symbols: int, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(10 * frames + symbols)
    return torch.randn(batch, frames, symbols + 1, 4, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("frames", "symbols"), [(1, 0), (1, 3), (4, 0), (3, 2), (5, 3), (2, 4)])
def test_the_loss_is_the_sum_over_every_path(frames: int, symbols: int) -> None:
    said = torch.randint(1, 4, (1, symbols), generator=torch.Generator().manual_seed(1))
    mine, plain = (lattice(frames, symbols).requires_grad_() for _ in range(2))
    loss = transducer_loss(mine.log_softmax(3), said, torch.tensor([frames]), torch.tensor([symbols]))
    want = by_every_path(plain.log_softmax(3)[0], said[0].tolist())
    assert torch.allclose(loss[0], want)
    loss.sum().backward()
    want.backward()
    assert mine.grad is not None
    assert plain.grad is not None
    assert torch.allclose(mine.grad, plain.grad)


def test_the_gradient_is_that_of_small_differences() -> None:
    said = torch.tensor([[1, 2], [3, 1]])
    frames, lengths = torch.tensor([3, 2]), torch.tensor([2, 1])
    x = lattice(3, 2, batch=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: transducer_loss(x.log_softmax(3), said, frames, lengths), x)


def test_padding_belongs_to_nobody() -> None:
    """Each of a batch has the loss that it has alone, whatever stands behind its end."""
    said, x = torch.tensor([[1, 2, 3], [2, 2, 1]]), lattice(5, 3, batch=2)
    x[1, 3:] = 1e4
    x[1, :, 3:] = -1e4
    x = x.requires_grad_()
    loss = transducer_loss(x.log_softmax(3), said, torch.tensor([5, 3]), torch.tensor([3, 2]))
    for row, (frames, count) in enumerate(((5, 3), (3, 2))):
        want = by_every_path(x[row, :frames, : count + 1].log_softmax(2), said[row, :count].tolist())
        assert torch.allclose(loss[row], want)
    loss.sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert not x.grad[1, 3:].any()


# -- the model --------------------------------------------------------------------------------------------------------


TOKENS = ["<blank>", " ", "a", "b", "c"]
SMALL = ListenerConfig(len(TOKENS), bands=12, channels=8, dilations=(1,), hidden=10)


def transducer(symbols: int = 2) -> Transducer:
    torch.manual_seed(4)
    model = Transducer(TransducerConfig(SMALL, symbols, embedding=4, memory=6, joint=12))
    settle(model)
    with torch.no_grad():
        model.hear.weight *= 3  # so that it says a letter here and there, and not always the same
        model.expect.weight *= 6
        model.join.weight *= 4
        model.join.bias[0] += 2
    return model


def noise(batch: int, frames: int, hop: int) -> Tensor:
    generator = torch.Generator().manual_seed(frames)
    return torch.randint(-9000, 9000, (batch, frames * hop), dtype=torch.int16, generator=generator)


@torch.no_grad()
@pytest.mark.parametrize("symbols", [1, 2, 3])
def test_the_search_takes_what_a_plain_one_takes(symbols: int) -> None:
    """One stream, one frame after another: until the blank comes, or ``symbols`` tokens were taken."""
    model = transducer(symbols)
    pcm = noise(1, 40, model.hop)
    log_probs, _ = model(pcm, model.initial_state(1))
    assert log_probs.shape == (1, 40, symbols, len(TOKENS))
    written: list[int] = []
    for t in range(40):
        for s in range(symbols):
            row = model.lattice(pcm, torch.tensor([[*written, 0]]))[0][0, t, len(written)]
            assert torch.allclose(log_probs[0, t, s], row, atol=1e-4)
            if int(row.argmax()):
                written.append(int(row.argmax()))
    best = log_probs[0].flatten(0, 1).argmax(1)
    assert best[best > 0].tolist() == written
    assert len(set(written)) > 1
    assert 5 < len(written) < 40 * symbols


@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=6))
@settings(max_examples=15, deadline=None)
def test_any_split_gives_the_output_of_the_whole(lengths: list[int]) -> None:
    model = transducer()
    pcm = noise(2, sum(lengths), model.hop)
    whole, after = chunked(model, pcm, [pcm.shape[1]])
    pieces, later = chunked(model, pcm, [n * model.hop for n in lengths])
    assert_close(pieces, whole)
    assert all(torch.allclose(later[name], value, atol=1e-4) for name, value in after.items())


def test_state_and_company() -> None:
    model = transducer()
    check_state(model, noise(3, 4, model.hop))
    check_company(model, noise(2, 9, model.hop), lambda row: torch.full_like(row, -32768))
    state = model.initial_state(2)
    for value in state.values():
        value[1] = float("nan")
    with torch.no_grad():
        y, _ = model(noise(2, 5, model.hop), state)
    assert_close(y[:1], chunked(model, noise(2, 5, model.hop)[:1], [5 * model.hop])[0], 1e-5)


# -- the recipe -------------------------------------------------------------------------------------------------------


def tones(speaker: str, seed: int) -> list[Utterance]:
    """ONE and TWO as two pitches."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(24):
        word, pitch = (("ONE", 400), ("TWO", 1500))[i % 2]
        time = np.arange(int(0.3 * RATE)) / RATE
        wave = np.sin(2 * np.pi * pitch * time) * 9000 + rng.standard_normal(len(time)) * 100
        out.append(Utterance(f"{speaker}{i}", speaker, word, [[]], 0, wave.astype(np.int16)))
    return out


def test_digits_are_written_as_words_and_joined() -> None:
    one, two = tones("a", 1)[:2]
    assert [INFO["tokens"][k] for k in spell([one, two])] == ["one", "two"]
    (string,) = joined([one, two], length=2)
    assert sorted(string.text.split()) == ["ONE", "TWO"]
    assert len(string.pcm) > len(one.pcm) + len(two.pcm)


@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_it_learns_is_judged_and_writes_through_the_engine(tmp_path: Path) -> None:
    sources = [UtteranceSource("tones", [u for name in "abc" for u in tones(name, ord(name))], lambda p: 1.0, (1, 3))]
    pool = DigitPool(sources, np.zeros(0, np.int16), count=12, seconds=6.0)
    held = joined(tones("d", 9), length=3)
    ear = ListenerConfig(len(INFO["tokens"]), bands=12, channels=12, dilations=(1,), hidden=16)
    budget = Budget(steps=150, rate=6e-3, average=0.9)
    best, plain = transducer_digits.learn(pool, held, tmp_path, budget, ear)
    assert set(transducer_digits.compare(best, plain, {"tones": held})) == {
        "WER %, tones",
        "WER %, tones, CTC on the same ear",
    }
    model, info = checkpoint.load(best)
    assert score(model, held).rate < 0.9  # it has found some of the words; silent, as it begins, it is 1
    file = tmp_path / "small.onnx"
    assert build(model, info, file, max_batch=8, long_chunks=60).ok
    engine = Model.load(file)
    task = create(engine.manifest)
    recordings = held[:3]
    heard = [pair[1] for pair in score(model, recordings).pairs]
    chunk, flush = engine.manifest.chunk, engine.manifest.flush * HOP
    for recording, want in zip(recordings, heard, strict=True):
        length = len(recording.pcm) + flush
        pcm = np.zeros((1, -(-length // chunk) * chunk), np.int16)
        pcm[0, : len(recording.pcm)] = recording.pcm
        stepper, memory, events = Stepper(engine), task.open({}), []
        for begin in range(0, pcm.shape[1], chunk):
            outputs = stepper.step(pcm[:, begin : begin + chunk])
            real = min(engine.manifest.steps, max(0, -(-(length - begin) // HOP)))
            events += task.step([memory], outputs, [real])[0]
        events += task.finish(memory)
        assert " ".join(e.to_dict()["text"] for e in events if e.type == "final") == want
