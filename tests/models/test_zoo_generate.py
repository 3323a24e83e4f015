"""Generators: counted noise, teaching equals running, any chunk length, any company, files that keep the laws."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from export.build import build
from models.layers.sampling import ControlColumns, Noise, Onset, choose
from models.training import checkpoint
from models.zoo.generate import characters, music, spoken_digits
from models.zoo.generate.spoken_digits import compress
from models.zoo.generate.teaching import info, ngram_bits
from models.zoo.generate.token_rnn import TokenRNN, TokenRNNConfig
from models.zoo.generate.wavenet_generator import WaveNetConfig, WaveNetGenerator
from streamer.engine.model import Model
from streamer.streams.generation import Generation
from streamer.tasks.generate import expand

pytestmark = pytest.mark.long

LETTERS = ["<start>", *"abcdefgh "]
SMALL = WaveNetConfig(vocabulary=16, width=2, labels=3, channels=4, dilations=(1, 2), skip=4, hidden=6, embedding=3)


def writer() -> TokenRNN:
    torch.manual_seed(3)
    return TokenRNN(TokenRNNConfig(len(LETTERS), 12)).eval()


def speaker() -> WaveNetGenerator:
    torch.manual_seed(3)
    return WaveNetGenerator(SMALL).eval()


def about(model: Any, steps: int) -> dict[str, Any]:
    options: dict[str, Any] = {"kind": "text", "vocabulary": len(LETTERS), "tokens": LETTERS}
    if isinstance(model, WaveNetGenerator):
        labels = {"digit": ["silence", "one", "two"]}
        options = {"kind": "audio", "vocabulary": 16, "sample_rate": 8000, "conditions": labels}
    return info("small", model.columns.limits(), steps, options) | {"licence": "none", "data": "none"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Judged files: the writer with 2 and with 3 letters a call, the speaker with 2 frames a call."""
    folder = tmp_path_factory.mktemp("generators")
    wanted = {"letters2": (writer(), 2), "letters3": (writer(), 3), "sound2": (speaker(), 2)}
    for name, (model, steps) in wanted.items():
        assert build(model, about(model, steps), folder / f"{name}.onnx", max_batch=8, long_chunks=60).ok
    return {name: folder / f"{name}.onnx" for name in wanted}


# -- layers -----------------------------------------------------------------------------------------------------------


def mixed(x: int) -> int:
    """lowbias32 in plain numbers."""
    x = ((x ^ x >> 16) * 0x7FEB352D) % 2**32
    x = ((x ^ x >> 15) * 0x846CA68B) % 2**32
    return x ^ x >> 16


def test_noise_is_a_hash_of_seed_and_count() -> None:
    draws, state = Noise(2)(torch.tensor([[7, 0, 0, 9, 0]]), Noise(2).initial_state(1))
    for at, seed in enumerate([7, 7, 7, 9, 9]):
        for j in range(2):
            key = mixed(seed)
            want = mixed((mixed(mixed(key) ^ (2 * at + j)) + key * 0x9E3779B1) % 2**32) >> 8
            assert draws[0, at, j] == want / 2**24
    assert {name: value.tolist() for name, value in state.items()} == {"count": [[10]], "seed": [[9]]}


def test_draws_are_uniform_and_seeds_do_not_know_each_other() -> None:
    seeds = torch.arange(1, 9)[:, None] * torch.ones(1, 2000, dtype=torch.int64)
    draws, _ = Noise()(seeds, Noise().initial_state(8))
    assert float(draws.min()) >= 0
    assert float(draws.max()) < 1
    counts = torch.histc(draws, 20, 0, 1)
    assert float(((counts - 800) ** 2 / 800).sum()) < 43.8  # chi-square of 19 degrees, one in a thousand
    together = torch.corrcoef(torch.cat([draws[:, :-1, 0], draws[:, 1:, 0]])) - torch.eye(16)
    assert float(together.abs().max()) < 0.1


def test_an_onset_is_counted_from_the_last_change() -> None:
    layer = Onset(4)
    labels = torch.tensor([[0, 0, 2, 2, 2, 2, 2, 2, 1]])
    since, _ = layer(labels, layer.initial_state(1))
    assert since.tolist() == [[1, 2, 0, 1, 2, 3, 4, 4, 0]]
    state, parts = layer.initial_state(1), []
    for piece in labels.split([3, 1, 4, 1], 1):
        part, state = layer(piece, state)
        parts.append(part)
    assert torch.equal(torch.cat(parts, 1), since)


def drawn(logits: list[float], draws: Tensor, heat: float, k: int = 0) -> Tensor:
    """Shares of the tokens that are chosen."""
    columns = ControlColumns(len(logits))
    row = torch.tensor([[[0, round(1000 * heat), k, 0]]], dtype=torch.int32)
    settings = columns.read(row.expand(len(draws), 1, 4))
    top = settings.top
    assert top is not None
    rows = torch.tensor(logits).expand(len(draws), -1)
    tokens = choose(rows, draws[:, None], settings.scale[:, 0], top[:, 0], settings.force[:, 0])
    return torch.bincount(tokens[:, 0], minlength=len(logits)) / len(draws)


def test_tokens_are_drawn_by_their_probability() -> None:
    logits, draws = [0.0, 1.0, -1.0, 2.0], torch.arange(4096) / 4096
    x = torch.tensor(logits)
    for heat in (1.0, 0.5):
        assert torch.allclose(drawn(logits, draws, heat), (x / heat).softmax(0), atol=1e-3)
    two = torch.tensor([-1e9, 1.0, -1e9, 2.0]).softmax(0)
    assert torch.allclose(drawn(logits, draws, 1.0, 2), two, atol=1e-3)
    assert drawn(logits, draws, 1.0, 1).tolist() == [0, 0, 0, 1]
    assert drawn(logits, draws, 0.0).tolist() == [0, 0, 0, 1]
    ends = torch.tensor([0.0, 1 - 2**-24])
    assert drawn([-1e9, 0.0, -1e9], ends, 1.0).tolist() == [0, 1, 0]  # what has no share is never drawn


def test_settings_out_of_their_limits_are_taken_for_the_nearest() -> None:
    columns = ControlColumns(5, 1, conditions={"word": 3})
    far = columns.read(torch.full((1, 1, 5), 2**31 - 1, dtype=torch.int32))
    assert far.conditions["word"].item() == 2
    assert far.force.item() == 4
    near = columns.read(torch.full((1, 1, 5), -(2**31), dtype=torch.int32))
    assert (near.conditions["word"].item(), near.force.item(), near.seed.item()) == (0, -1, 0)


# -- models -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_teaching_gives_what_running_gives() -> None:
    model = writer()
    tokens = torch.randint(len(LETTERS), (2, 9), generator=torch.Generator().manual_seed(0))
    controls = torch.zeros(2, 9, 4, dtype=torch.int32)
    controls[:, :, 3] = tokens + 1
    out, _ = model(controls, model.initial_state(2))
    assert torch.equal(out["tokens"][:, :, 0], tokens)
    want = model.teach(tokens).log_softmax(2).gather(2, tokens[:, :, None])
    assert torch.allclose(out["log_prob"], want, atol=1e-5)
    wave = speaker()
    samples = torch.randint(16, (2, 9, 2), generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1] * 9, [0] * 4 + [2] * 5])
    controls = torch.cat([torch.zeros(2, 9, 2), labels[:, :, None], samples + 1], 2).int()
    out, _ = wave(controls, wave.initial_state(2))
    since, _ = wave.onset(labels, wave.onset.initial_state(2))
    want = wave.teach(samples, labels, since).log_softmax(3).gather(3, samples[..., None])[..., 0]
    assert torch.allclose(out["log_prob"], want, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("lengths", [[1] * 12, [5, 1, 6], [11, 1]])
def test_any_split_gives_the_same_tokens(lengths: list[int]) -> None:
    for model in (writer(), speaker()):
        controls = torch.zeros(2, 12, len(model.columns.limits()), dtype=torch.int32)
        controls[:, 0, 0] = torch.tensor([5, 6])
        controls[:, :, 1] = 1500
        whole, after = model(controls, model.initial_state(2))
        state, parts = model.initial_state(2), []
        for piece in controls.split(lengths, 1):
            out, state = model(piece, state)
            parts.append(out["tokens"])
        assert torch.equal(torch.cat(parts, 1), whole["tokens"])
        assert not torch.equal(whole["tokens"][0], whole["tokens"][1])
        assert all(torch.allclose(state[name].float(), after[name].float(), atol=1e-5) for name in after)


# -- files ------------------------------------------------------------------------------------------------------------


def text(path: Path, wishes: list[dict[str, Any]], letters: int) -> list[str]:
    generation = Generation(Model.load(path), wishes)
    said = [""] * len(wishes)
    while generation.memories[0].position < letters:
        for i, events in enumerate(generation.step()):
            said[i] += "".join(event.to_dict()["text"] for event in events)
    return [part[:letters] for part in said]


def test_a_seed_gives_the_same_text_in_any_company_and_any_chunks(files: dict[str, Path]) -> None:
    wishes: list[dict[str, Any]] = [{"seed": seed, "temperature": 1.0, "prompt": "abc"[:seed]} for seed in (1, 2, 3, 4)]
    together = text(files["letters3"], wishes, 60)
    assert [text(files["letters3"], [wish], 60)[0] for wish in wishes] == together
    assert text(files["letters2"], wishes, 60) == together
    assert [part[: len(wish["prompt"])] for part, wish in zip(together, wishes, strict=True)] == [
        wish["prompt"] for wish in wishes
    ]
    assert len(set(together)) == 4


def test_sound_comes_out_of_the_file(files: dict[str, Path]) -> None:
    generation = Generation(Model.load(files["sound2"]), [{"conditions": {"digit": "two"}}, {"seed": 2}])
    pieces = [generation.step([2, 1]) for _ in range(3)]
    assert [len(events[0].pcm) for events in pieces[0]] == [4, 2]  # type: ignore[attr-defined]
    assert generation.finish() == [[], []]


def test_mu_law_there_and_back() -> None:
    assert np.array_equal(compress(expand(np.arange(256))), np.arange(256))


# -- recipes ----------------------------------------------------------------------------------------------------------


def test_an_ngram_knows_what_it_has_seen() -> None:
    seen = [0, 1, 2] * 50
    assert ngram_bits(seen, seen, 2, 3) < 0.2 < 1.5 < ngram_bits(seen, seen, 1, 3) < 1.65


def test_the_grammar_of_music_leaves_no_note_sounding() -> None:
    tokens, starts = music.corpus(3, seed=5)
    assert len(starts) == 3
    sounding: list[int] = []
    for token in (music.TOKENS[code] for code in tokens):
        what, _, number = token.partition(":")
        if what == "on":
            assert int(number) not in sounding
            sounding.append(int(number))
        elif what == "off":
            sounding.remove(int(number))
    assert not sounding


@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_the_recipe_of_characters(tmp_path: Path) -> None:
    """A few batches on a text of its own: what it leaves can be loaded, and has learnt which letters there are."""
    (tmp_path / "text").write_text("\n".join("THE CAT SAT ON THE MAT" for _ in range(1200)) + "\n")
    best = characters.train(tmp_path / "run", steps=25, path=tmp_path / "text")
    model, found = checkpoint.load(best)
    assert found["options"]["tokens"] == characters.TOKENS
    assert (tmp_path / "run" / "scores.json").exists()
    with torch.no_grad():
        seen = (
            model.teach(torch.from_numpy(characters.encode("the cat sat on the mat\n"))[None]).softmax(2).mean((0, 1))
        )
    assert float(seen[characters.encode("theca sonm\n")].sum()) > 0.7


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs espeak-ng")
@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_the_recipe_of_spoken_digits(tmp_path: Path) -> None:
    small = WaveNetConfig(channels=4, dilations=(1, 2), skip=4, hidden=6)
    model, found = checkpoint.load(spoken_digits.train(tmp_path, steps=2, config=small))
    assert model.config == small
    assert found["options"]["conditions"]["digit"][:3] == ["silence", "zero", "one"]
    spoken = spoken_digits.DigitTokens(spoken_digits.HELD[:1], 4, seed=1)
    _, labels, since = spoken.example(spoken.starts[1] - 2, 5)
    assert labels[0] != labels[2]
    assert since.tolist()[2:] == [0, 1, 2]
