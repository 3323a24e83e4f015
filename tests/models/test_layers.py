"""Every layer: whole = chunked for any split, company, zero start, declared receptive field, gradients everywhere."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.layers import (
    Bidirectional,
    CausalConv,
    Chain,
    FeedForward,
    GatedStack,
    LogMel,
    MinGRU,
    RecurrentStack,
    Residual,
    RunningNorm,
    Streaming,
    StridedConv,
    Subsample,
    WindowAttention,
)
from tests.models.laws import assert_close, check_company, check_state, chunked, measured_field, settle

FEATURES = 6


def build(name: str) -> Streaming:
    torch.manual_seed(0)
    layers = {
        "conv": lambda: CausalConv(FEATURES, 5, kernel=3, dilation=4),
        "pointwise": lambda: CausalConv(FEATURES, 5, kernel=1),
        "strided": lambda: StridedConv(FEATURES, 5, kernel=5, stride=2),
        "strided-without-overlap": lambda: StridedConv(FEATURES, 5, kernel=3, stride=3),
        "subsample": lambda: Subsample(FEATURES, 8, kernel=7, stride=3),
        "gated": lambda: GatedStack(FEATURES, (1, 2, 4), kernel=3),
        "gated-skip": lambda: GatedStack(FEATURES, (1, 2), kernel=2, skip=7),
        "lstm": lambda: RecurrentStack("lstm", FEATURES, 8, 2),
        "gru": lambda: RecurrentStack("gru", FEATURES, 8, 2),
        "rnn": lambda: RecurrentStack("rnn", FEATURES, 8, 1),
        "attention": lambda: WindowAttention(FEATURES, 2, window=9),
        "bidirectional": lambda: Bidirectional(FEATURES, 5, ahead=4),
        "look at nothing": lambda: Bidirectional(FEATURES, 5, ahead=0),
        "mingru": lambda: MinGRU(FEATURES, 8),
        "residual": lambda: Chain(
            {"a": Residual(WindowAttention(FEATURES, 3, 5), FEATURES), "b": Residual(FeedForward(FEATURES), FEATURES)}
        ),
        "norm": lambda: RunningNorm(FEATURES, prior=5, horizon=40, block=8),
        "norm that sleeps": lambda: RunningNorm(FEATURES, prior=5, horizon=40, block=8, quiet=-0.3, least=0.4),
        "chain": lambda: Chain(
            {"a": Subsample(FEATURES, 8, 3, 2), "b": GatedStack(8, (1, 2)), "c": Subsample(8, 4, 5, 3)}
        ),
    }
    return settle(layers[name]())


NAMES = [
    *"conv pointwise strided strided-without-overlap subsample gated gated-skip lstm gru rnn attention mingru".split(),
    *("residual", "norm", "norm that sleeps", "chain"),
]


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_any_split_gives_the_output_of_the_whole(name: str, data: st.DataObject) -> None:
    layer = build(name)
    lengths = [n * layer.stride for n in data.draw(st.lists(st.integers(1, 13), min_size=1, max_size=8))]
    x = torch.randn(2, sum(lengths), FEATURES, generator=torch.Generator().manual_seed(sum(lengths)))
    whole, after_whole = chunked(layer, x, [sum(lengths)])
    pieces, after_pieces = chunked(layer, x, lengths)
    assert whole.shape[1] == x.shape[1] // layer.stride
    assert_close(pieces, whole)
    for key, value in after_whole.items():
        assert_close(after_pieces[key], value)


@pytest.mark.parametrize("name", NAMES)
def test_state_is_flat_zero_and_batch_first(name: str) -> None:
    layer = build(name)
    check_state(layer, torch.randn(3, 6 * layer.stride, FEATURES))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
def test_a_stream_does_not_notice_its_company(name: str, poison: float) -> None:
    layer = build(name)
    x = torch.randn(2, 12 * layer.stride, FEATURES)
    check_company(layer, x, lambda row: torch.full_like(row, poison))


@pytest.mark.parametrize("name", NAMES)
def test_the_receptive_field_is_the_declared_one(name: str) -> None:
    layer = build(name)
    x = torch.randn(1, 60 * layer.stride, FEATURES)
    if layer.receptive_field is None:
        pytest.skip("memory without end")
    assert measured_field(layer, x) == layer.receptive_field


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("norm")])
def test_gradients_reach_every_weight(name: str) -> None:
    layer = build(name).train()
    y, _ = layer(torch.randn(4, 10 * layer.stride, FEATURES), layer.initial_state(4))
    y.square().sum().backward()
    for key, weight in layer.named_parameters():
        assert weight.grad is not None, key
        assert torch.isfinite(weight.grad).all(), key
        # a bias of the recurrence may be idle by symmetry, a matrix may not
        assert weight.ndim < 2 or weight.grad.abs().sum() > 0, key


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=8), rate=st.sampled_from([8000, 16000]))
@settings(max_examples=20, deadline=None)
def test_log_mel_for_any_split(lengths: list[int], rate: int) -> None:
    mel = LogMel(rate, bands=24)
    pcm = torch.randint(-32768, 32768, (2, sum(lengths) * mel.stride), dtype=torch.int16)
    whole, _ = chunked(mel, pcm, [pcm.shape[1]])
    pieces, _ = chunked(mel, pcm, [n * mel.stride for n in lengths])
    assert whole.shape == (2, sum(lengths), 24)
    assert_close(pieces, whole)


def test_log_mel_hears_a_tone_in_its_band() -> None:
    mel = LogMel(16000)
    for hz in (200.0, 1000.0, 4000.0):
        wave = torch.sin(2 * torch.pi * hz * torch.arange(1600) / 16000) * 16000
        y, _ = mel(wave.to(torch.int16)[None], mel.initial_state(1))
        used = mel.filters[: mel.filters.shape[0] // 2]
        spectrum = torch.linspace(0, 8000, 257)[torch.linspace(0, 8000, 257) >= 60][: used.shape[0]]
        centre = float(spectrum[used[:, int(y[0, -1].argmax())].argmax()])
        assert abs(centre - hz) < 0.12 * hz + 40


def test_log_mel_has_no_empty_filter_and_silence_is_finite() -> None:
    for rate in (8000, 16000):
        mel = LogMel(rate)
        assert (mel.filters.sum(0) > 0).all()
        y, _ = mel(torch.zeros(1, rate // 10, dtype=torch.int16), mel.initial_state(1))
        assert torch.isfinite(y).all()


def test_running_norm_is_the_recursion_it_says() -> None:
    norm = RunningNorm(2, prior=4, horizon=20, block=7)
    norm.mean.copy_(torch.tensor([1.0, -2.0]))
    norm.std.copy_(torch.tensor([2.0, 0.5]))
    x = torch.randn(1, 50, 2) * 3
    got, _ = norm(x, norm.initial_state(1))
    mean, square = torch.zeros(2), torch.ones(2)
    for t in range(50):
        z = (x[0, t] - norm.mean) / norm.std
        n = min(4 + t + 1, 20)
        mean, square = mean + (z - mean) / n, square + (z * z - square) / n
        expected = (z - mean) / (square - mean * mean).clamp(min=0.05).sqrt()
        assert torch.allclose(got[0, t], expected, atol=1e-4)


def test_running_norm_keeps_adapting_after_years() -> None:
    norm = RunningNorm(1, prior=4, horizon=50)
    state = norm.initial_state(1)
    state["count"] += 1e9
    with torch.no_grad():
        for _ in range(20):
            y, state = norm(torch.full((1, 64, 1), 100.0) + torch.randn(1, 64, 1), state)
    assert state["count"].item() == 50
    assert abs(float(y[0, -20:].mean())) < 1.0
    assert torch.isfinite(y).all()


def test_running_norm_learns_nothing_from_what_can_not_be_heard() -> None:
    norm = RunningNorm(2, prior=4, horizon=20, block=7, quiet=-5.0, least=0.4)
    speech, zeros = torch.randn(1, 30, 2) * 3, torch.full((1, 500, 2), -5.0)
    start = norm.initial_state(1)
    nothing, slept = norm(zeros, start)
    assert all(torch.equal(slept[name], start[name]) for name in start)
    assert torch.equal(nothing, zeros)
    _, woken = norm(torch.cat([zeros, speech], 1), start)
    _, fresh = norm(speech, start)
    assert 0 < float(fresh["count"]) <= 20
    for name in start:
        torch.testing.assert_close(woken[name], fresh[name])
    mean, square = torch.zeros(2), torch.ones(2)
    count = 0.0
    for x in speech[0]:
        weight = min(1.0, max(0.0, float(x.mean()) + 5.0))
        count += weight
        share = weight / min(4 + count, 20)
        mean, square = mean + (x - mean) * share, square + (x * x - square) * share
    torch.testing.assert_close(fresh["mean"][0], mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fresh["square"][0], square - 1, rtol=1e-4, atol=1e-4)


def test_running_norm_does_not_take_a_steady_noise_for_speech() -> None:
    noise = torch.randn(1, 12000, 2) * 0.25 - 3.0
    for least in (0.05, 0.4):
        norm = RunningNorm(2, least=least)
        y, _ = norm(noise, norm.initial_state(1))
        assert (float(y[0, -500:].std()) > 0.8) == (least < 0.1)


def test_running_norm_does_not_blow_up_the_first_frame() -> None:
    norm = RunningNorm(3)
    y, _ = norm(torch.zeros(1, 1, 3), norm.initial_state(1))
    assert y.abs().max() < 1


def test_the_backward_direction_is_that_of_an_lstm_over_what_has_come() -> None:
    layer = build("bidirectional")
    assert isinstance(layer, Bidirectional)
    whole = torch.nn.LSTM(FEATURES, 5, batch_first=True)
    back = layer.back
    with torch.no_grad():
        whole.weight_ih_l0.copy_(back.enter.weight)
        whole.bias_ih_l0.copy_(back.enter.bias)
        whole.weight_hh_l0.copy_(back.again.weight)
        whole.bias_hh_l0.zero_()
        x = torch.randn(1, 20, FEATURES)
        got, _ = layer(x, layer.initial_state(1))
        for t in (4, 9, 19):
            want, _ = whole(x[:, t - 4 : t + 1].flip(1))  # from input t back to t - 4
            assert_close(got[0, t, 5:], want[0, -1], 1e-5)


def test_attention_is_what_it_says() -> None:
    layer = build("attention")
    assert isinstance(layer, WindowAttention)
    x = torch.randn(1, 20, FEATURES)
    got, _ = layer(x, layer.initial_state(1))
    q, k, v = layer.enter(x[0]).chunk(3, 1)
    for t in (0, 3, 19):
        heads = []
        for h, part in enumerate((slice(0, 3), slice(3, 6))):
            steps = torch.arange(max(0, t - 8), t + 1)
            scores = (k[steps, part] @ q[t, part]) / 3**0.5 + layer.bias[h, t - steps]
            heads.append(scores.softmax(0) @ v[steps, part])
        assert torch.allclose(got[0, t], layer.leave(torch.cat(heads)), atol=1e-5)


def test_the_scan_is_the_recurrence_and_so_are_its_gradients() -> None:
    layer = build("mingru").double()
    x = torch.randn(2, 700, FEATURES, dtype=torch.float64)
    start = {"h": torch.rand(2, 8, dtype=torch.float64)}
    found = []
    for training in (True, False):
        layer.train(training).zero_grad()
        y, state = layer(x, start)
        y[:, ::50].square().sum().backward()
        found.append((y, state["h"], *(weight.grad.clone() for weight in layer.parameters())))  # type: ignore[union-attr]
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-8, atol=1e-10)


def test_the_scan_lives_where_gates_are_shut_or_open_in_float32() -> None:
    layer = build("mingru").train()
    x = 40 * torch.randn(2, 3000, FEATURES)
    y, _ = layer(x, layer.initial_state(2))
    y.sum().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in layer.parameters() if weight.grad is not None)
    want, _ = layer.eval()(x, layer.initial_state(2))
    assert_close(y, want, 1e-3)
