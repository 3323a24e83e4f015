"""The Transformer that hears in blocks: its laws, what a step may see, and its likeness to Whisper's encoder."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.layers import BlockAttention, LogMel, TransformerStack
from models.layers.transformer import PERIOD, TOGETHER, Sinusoids
from models.speech import whisper
from models.speech.acoustic import Acoustic, AcousticConfig, whole
from tests.models.laws import assert_close, check_company, check_state, chunked, settle

FEATURES, BLOCK, PAST = 5, 3, 6
#: Input steps of one block.
STEP = 4 * BLOCK

SMALL = AcousticConfig(
    "attention", 16000, 7, bands=20, channels=16, layers=3, heads=2, merged=1, block=2, past=4, dropout=0.0, gated=True
)


def stack(layers: int = 3, half: bool = False) -> TransformerStack:
    torch.manual_seed(1)
    made = settle(TransformerStack(FEATURES, 16, 4, layers, min(1, layers - 1), BLOCK, PAST, 0.0, half))
    assert isinstance(made, TransformerStack)
    return made


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("blocks", [[1] * 9, [4, 5], [2, 1, 6], [8, 1]])
def test_any_split_between_blocks_gives_the_output_of_the_whole(blocks: list[int], half: bool) -> None:
    layer = stack(half=half)
    x = torch.randn(2, 9 * STEP, FEATURES)
    want, after = chunked(layer, x, [9 * STEP])
    got, state = chunked(layer, x, [n * STEP for n in blocks])
    assert want.shape == (2, 9 * BLOCK, 16)
    # a sum in another order may be rounded to the next number of float16
    tolerance = 2e-3 if half else 1e-4
    assert_close(got, want, tolerance)
    for name, value in after.items():
        assert state[name].dtype == value.dtype
        assert_close(state[name].float(), value.float(), tolerance)


def test_keys_and_values_in_half_the_bytes_say_nearly_the_same() -> None:
    exact, rounded = stack(), stack(half=True)
    assert all(
        value.dtype == torch.float16 for name, value in rounded.initial_state(1).items() if name.endswith("0.past")
    )
    x = torch.randn(1, 6 * STEP, FEATURES)
    want, got = (layer(x, layer.initial_state(1))[0] for layer in (exact, rounded))
    assert 0 < (got - want).abs().max() < 5e-3


def test_the_last_block_may_be_short() -> None:
    layer = stack()
    x = torch.randn(1, 2 * STEP + 4, FEATURES)
    short, _ = layer(x, layer.initial_state(1))
    full, _ = layer(x[:, : 2 * STEP], layer.initial_state(1))
    assert short.shape[1] == 2 * BLOCK + 1
    assert_close(short[:, : 2 * BLOCK], full)


def test_a_step_sees_its_block_and_the_past_alone() -> None:
    layer = stack(layers=1)
    x = torch.randn(1, 8 * STEP, FEATURES)
    y, _ = layer(x, layer.initial_state(1))
    seen = []
    for block in range(8):
        other = x.clone()
        other[:, block * STEP : (block + 1) * STEP] += 1.0
        changed, _ = layer(other, layer.initial_state(1))
        differs = (changed != y).any(2)[0].unflatten(0, (8, BLOCK))
        assert differs[block].all()  # the block's first step hears its last
        seen.append(differs.any(1).tolist())
    # the convolutions carry a block's end into the next one, from where it is seen for PAST more steps
    behind = 1 + PAST // BLOCK
    assert seen == [[0 <= later - block <= behind for later in range(8)] for block in range(8)]


def test_states_and_company() -> None:
    layer = stack()
    x = torch.randn(3, 4 * STEP, FEATURES)
    check_state(layer, x)
    for poison in (float("nan"), float("inf"), 1e30):
        check_company(layer, x[:2], lambda row, value=poison: torch.full_like(row, value))


def test_a_state_that_is_no_number_harms_its_own_stream_alone() -> None:
    layer = stack()
    x = torch.randn(2, STEP, FEATURES)
    state = layer.initial_state(2)
    want, _ = layer(x, state)
    broken = {name: value.clone() for name, value in state.items()}
    for value in broken.values():
        value[1] = float("nan")
    got, _ = layer(x, broken)
    assert_close(got[0], want[0])


def test_positions_go_round() -> None:
    layer = settle(Sinusoids(8, BLOCK * 2, 2))
    x = torch.zeros(1, BLOCK * 2, 8)
    first, state = layer(x, layer.initial_state(1))
    for _ in range(PERIOD // (2 * BLOCK) - 1):
        y, state = layer(x, state)
        assert not torch.equal(y, first)
    assert state["step"].item() == 0
    again, _ = layer(x, state)
    assert torch.equal(again, first)
    angles = torch.arange(BLOCK * 2)[:, None] * 10000.0 ** (-torch.arange(4) / 3)
    assert_close(first[0], torch.cat([angles.sin(), angles.cos()], 1), 1e-5)


def test_a_stream_that_was_silent_for_long_is_read_as_a_new_one() -> None:
    """But for what it has seen: positions begin anew with the third silent block, at any split."""
    model = Acoustic(SMALL).eval()
    size = model.block
    speech = torch.randint(-3000, 3000, (1, 4 * size), dtype=torch.int16)
    dither = torch.randint(-1, 2, (1, 8 * size), dtype=torch.int16)
    sound = torch.cat([speech, dither, speech], 1)
    want, _ = model(sound, model.initial_state(1))
    state, steps = model.initial_state(1), []
    for piece in sound.split(size, 1):
        got, state = model(piece, state)
        steps.append(state["encoder.attention.positions.step"].item() / 4)
        assert_close(got, want[:, 2 * len(steps) - 2 : 2 * len(steps)])
    assert steps == [1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]


@pytest.mark.parametrize("steps", [BLOCK * (2 * TOGETHER + 3), BLOCK * TOGETHER + 1, 2])
def test_training_attends_to_the_same_steps(steps: int) -> None:
    torch.manual_seed(1)
    layer = BlockAttention(16, 4, BLOCK, PAST)
    _, state = layer.eval()(torch.randn(2, BLOCK, 16), layer.initial_state(2))  # a past of which half is there
    state = {name: value.detach() for name, value in state.items()}
    x, found = torch.randn(2, steps, 16), {}
    for training in (False, True):
        given = x.clone().requires_grad_()
        y, after = layer.train(training)(given, state)
        y.square().sum().backward()
        found[training] = [y, given.grad, *after.values()]
    for want, got in zip(found[False], found[True], strict=True):
        assert_close(got, want, 1e-5)


def test_blocks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="in blocks of"):
        BlockAttention(8, 2, 4, 6)


# -- the model ---------------------------------------------------------------------------------------------------------


def test_an_acoustic_model_in_blocks() -> None:
    model = Acoustic(SMALL).eval()
    assert (model.hop, model.block) == (640, 1280)
    pcm = torch.randint(-3000, 3000, (2, 5 * model.block), dtype=torch.int16)
    want = whole(model, pcm)
    got, _ = chunked(model, pcm, [model.block] * 5)
    assert want.shape == (2, 10, 7)
    assert_close(got, want)


def test_an_offset_of_the_microphone_is_not_heard() -> None:
    """Speech with it gives what speech without it gives, but at the step where it sets in; by itself it is silence."""
    torch.manual_seed(2)
    model = Acoustic(replace(SMALL, centred=True, gated=True)).eval()
    speech = torch.randint(-3000, 3000, (1, 4 * model.block), dtype=torch.int16)
    mel = model.front.layers["mel"]
    plain, state = mel(speech, mel.initial_state(1))
    moved, _ = mel(speech + 5000, {"overlap": state["overlap"] * 0 + 5000})
    assert_close(moved, plain, 1e-3)
    state = model.initial_state(1)
    for _ in range(4):
        _, state = model(torch.full((1, model.block), 5000, dtype=torch.int16), state)
    assert state["encoder.attention.positions.still"].item() == 3
    assert state["front.norm.count"].item() < 4  # frames: the ones in which it sets in


# -- Whisper -----------------------------------------------------------------------------------------------------------


def model_bin(
    path: Path, tensors: dict[str, NDArray[np.float32]], kind: str = "float16", spec: str = "WhisperSpec"
) -> Path:
    """As CTranslate2's version 6 lays it out."""
    number = {"float32": 0, "int8": 1, "float16": 4}[kind]

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    data = struct.pack("<I", 6) + text(spec) + struct.pack("<II", 3, len(tensors))
    for name, array in tensors.items():
        raw = array.astype(kind).tobytes()
        data += text(name) + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        data += struct.pack("<BI", number, len(raw)) + raw
    path.write_bytes(data + struct.pack("<I", 0))
    return path


def encoder(config: AcousticConfig) -> dict[str, NDArray[np.float32]]:
    rng, c = np.random.default_rng(5), config.channels
    shapes = {"conv1/weight": (c, config.bands, 3), "conv1/bias": (c,), "conv2/weight": (c, c, 3), "conv2/bias": (c,)}
    norms = ["layer_norm"]
    for n in range(config.layers):
        for name, (out, into) in {
            "self_attention/linear_0": (3 * c, c), "self_attention/linear_1": (c, c), "ffn/linear_0": (4 * c, c),
            "ffn/linear_1": (c, 4 * c),
        }.items():  # fmt: skip
            shapes |= {f"layer_{n}/{name}/weight": (out, into), f"layer_{n}/{name}/bias": (out,)}
        norms += [f"layer_{n}/self_attention/layer_norm", f"layer_{n}/ffn/layer_norm"]
    for norm in norms:
        shapes |= {f"{norm}/gamma": (c,), f"{norm}/beta": (c,)}
    return {f"encoder/{name}": (0.3 * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}


def whispers(tensors: dict[str, Tensor], x: Tensor, config: AcousticConfig) -> Tensor:
    """Whisper's encoder in plain PyTorch, over features [2 + T, bands] that all see each other; convolutions see the
    past, and pairs of steps are merged in front of the last norm."""
    f, c = nn.functional, config.channels

    def linear(x: Tensor, name: str) -> Tensor:
        return f.linear(x, tensors[f"encoder/{name}/weight"], tensors[f"encoder/{name}/bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        return f.layer_norm(x, (c,), tensors[f"encoder/{name}/gamma"], tensors[f"encoder/{name}/beta"])

    y = f.conv1d(x.T[None], tensors["encoder/conv1/weight"], tensors["encoder/conv1/bias"])
    y = f.gelu(y, approximate="tanh")
    y = f.conv1d(f.pad(y, (1, 0)), tensors["encoder/conv2/weight"], tensors["encoder/conv2/bias"], stride=2)
    y = f.gelu(y, approximate="tanh")[0].T
    angles = torch.arange(len(y))[:, None] * 10000.0 ** (-torch.arange(c // 2) / (c // 2 - 1))
    y = y + torch.cat([angles.sin(), angles.cos()], 1)
    for n in range(config.layers):
        place = f"layer_{n}/self_attention"
        q, k, v = linear(norm(y, f"{place}/layer_norm"), f"{place}/linear_0").chunk(3, 1)
        q, k, v = (part.unflatten(1, (config.heads, -1)).transpose(0, 1) for part in (q, k, v))
        seen = ((q @ k.transpose(1, 2)) / q.shape[2] ** 0.5).softmax(2) @ v
        y = y + linear(seen.transpose(0, 1).flatten(1), f"{place}/linear_1")
        inner = f.gelu(linear(norm(y, f"layer_{n}/ffn/layer_norm"), f"layer_{n}/ffn/linear_0"), approximate="tanh")
        y = y + linear(inner, f"layer_{n}/ffn/linear_1")
    return norm(y.unflatten(0, (-1, 2)).mean(1), "layer_norm")


def test_the_weights_of_a_file_give_whispers_encoder(tmp_path: Path) -> None:
    """Over one block, in which all see each other; features of the mean and deviation that Whisper's have."""
    config = AcousticConfig(
        "attention", 16000, 7, bands=20, channels=16, layers=2, heads=2, merged=2, block=8, past=8, dropout=0.0
    )
    tensors = whisper.read(model_bin(tmp_path / "model.bin", encoder(config), "float32"))
    model = Acoustic(config).eval()
    rng = np.random.default_rng(0)
    sound = (rng.standard_normal(16000) * np.repeat(rng.uniform(10, 3000, 50), 320)).astype(np.int16)
    whisper.begin(model, tensors, [sound])
    mel = model.front.layers["mel"]
    logs, _ = mel(torch.from_numpy(sound)[None], mel.initial_state(1))
    natural = whisper.features((logs[0].exp() - mel.floor) * mel.areas)
    normalised = (natural - natural.mean(0)) / natural.std(0)
    layers = model.encoder.layers["attention"]
    got, _ = layers(normalised[None, :32], layers.initial_state(1))
    # before the stream there are zeros, which are the mean of Whisper's features
    before = natural.mean(0).repeat(2, 1)
    given = {name: torch.from_numpy(value) for name, value in tensors.items()}
    want = whispers(given, torch.cat([before, natural[:32]]), config)
    assert got.shape == (1, 8, 16)
    assert_close(got[0], want, 1e-3)


def test_files_that_are_none_of_whispers(tmp_path: Path) -> None:
    tensors = encoder(SMALL)
    with pytest.raises(ValueError, match="TransformerSpec of version 6"):
        whisper.read(model_bin(tmp_path / "a", tensors, spec="TransformerSpec"))
    with pytest.raises(ValueError, match="int8 weights"):
        whisper.read(model_bin(tmp_path / "b", tensors, "int8"))
    (tmp_path / "c").write_bytes(model_bin(tmp_path / "d", tensors).read_bytes()[:500])
    with pytest.raises(ValueError, match="not a Whisper model of CTranslate2"):
        whisper.read(tmp_path / "c")
    sound = [np.zeros(16000, np.int16)]
    with pytest.raises(ValueError, match="more than 2 layers"):
        whisper.begin(Acoustic(replace(SMALL, layers=2)), tensors, sound)
    with pytest.raises(ValueError, match="here and"):
        whisper.begin(Acoustic(replace(SMALL, channels=32)), tensors, sound)


def test_filters_are_whispers() -> None:
    from faster_whisper.feature_extractor import FeatureExtractor

    want = FeatureExtractor.get_mel_filters(16000, 400, 80)  # [80, 201]
    mel = LogMel(16000, 80, low=0.0, high=8000.0, scale="slaney", size=400)
    used = mel.filters[: len(mel.filters) // 2] * mel.areas
    assert np.abs(used.numpy() - np.asarray(want).T[np.asarray(want).any(0)]).max() < 1e-6
