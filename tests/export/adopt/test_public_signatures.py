"""Signatures of published streaming models, each on a small graph that the test makes, held to the host's own loop.

The host here is the plainest one: the original file, a call at a time, its states in a dictionary.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export.adopt.build import adopt
from export.adopt.report import AdoptionError
from streamer.contract.probe import Signal, run
from tests.export.adopt.support import (
    TOLERANCE,
    Adoption,
    Array,
    Arrays,
    Original,
    adoption,
    exported,
    far,
    heard,
    settings,
    sound,
    together,
)

pytestmark = pytest.mark.long


def called(source: Path, calls: list[Arrays], states: Arrays, pairs: dict[str, str]) -> list[Arrays]:
    """What the host gets of each call."""
    original, gave = Original(source), []
    for call in calls:
        got = original(**call, **states)
        states = {before: got[behind] for before, behind in pairs.items()}
        gave.append(got)
    return gave


def rows(count: int, *shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)


def stepped(adopted: Adoption, inputs: Arrays, conditions: Arrays | None = None) -> Arrays:
    """One stream, [n, *row] of every input, in whole chunks: every output, its steps in one row."""
    chunk = adopted.manifest.chunk
    chunks = {name: array.reshape(-1, 1, chunk, *array.shape[1:]) for name, array in inputs.items()}
    outputs, _ = run(adopted.model, Signal(chunks, conditions or {}))
    return {name: np.concatenate(list(column[:, 0])) for name, column in outputs.items()}


# -- voice activity ----------------------------------------------------------------------------------------------------


class Vad(nn.Module):
    """Frames of sound, a recurrence over them, one number or two."""

    def __init__(self, size: int, outs: int) -> None:
        super().__init__()
        self.conv, self.lstm = nn.Conv1d(1, size, 64, stride=64), nn.LSTM(size, size, 2)
        self.out, self.outs = nn.Linear(size, outs), outs

    def frames(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x[:, None])).permute(2, 0, 1)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (h, c) = self.lstm(self.frames(x), (h, c))
        return torch.sigmoid(self.out(y.mean(0))), h, c


class Vad4(Vad):
    """Two rates in one file: which half runs is decided in the graph, on the tensor ``sr``."""

    def __init__(self, size: int) -> None:
        super().__init__(size, 1)
        self.narrow = nn.Conv1d(1, size, 32, stride=32)

    def forward(self, x: Tensor, sr: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if sr == 16000:
            frames = torch.relu(self.conv(x[:, None])).permute(2, 0, 1)
        else:
            frames = torch.relu(self.narrow(x[:, None])).permute(2, 0, 1)
        y, (h, c) = self.lstm(frames, (h, c))
        return torch.sigmoid(self.out(y.mean(0))), h, c


SOUND = "[input]\nsample_rate = 16000\nchunk = 512\n"


def silero(path: Path, version: int) -> tuple[Path, dict[str, str]]:
    torch.manual_seed(version)
    x, h = torch.randn(1, 512), torch.zeros(2, 1, 64)
    free = {"input": {0: "batch", 1: "sequence"}} | {n: {1: "batch"} for n in ("h0", "c0", "h", "c", "hn", "cn")}
    if version == 3:
        names = {"input": x, "h0": h, "c0": h.clone()}
        exported(Vad(64, 2), path, names, ["output", "hn", "cn"], free)
        return path, {"h0": "hn", "c0": "cn"}
    names = {"input": x, "sr": torch.tensor(16000), "h": h, "c": h.clone()}
    exported(Vad4(64), path, names, ["output", "hn", "cn"], free, scripted=True)
    return path, {"h": "hn", "c": "cn"}


@pytest.mark.parametrize("version", [3, 4])
def test_silero_v3_and_v4(tmp_path: Path, version: int) -> None:
    """``input[B, T], (sr[],) h, c[2, B, 64] -> output[B, 2 or 1], hn, cn``."""
    source, pairs = silero(tmp_path / "vad.onnx", version)
    adopted = adoption(source, SOUND)
    assert adopted.pairs.items() >= pairs.items()
    assert adopted.manifest.outputs[0].shape == ((1, 2) if version == 3 else (1,))
    pcm = sound(20 * 512, 1)
    more = {"sr": np.array(16000)} if version == 4 else {}
    calls = [{"input": (chunk / 32768).astype(np.float32)[None], **more} for chunk in pcm.reshape(-1, 512)]
    start = {name: np.zeros((2, 1, 64), np.float32) for name in pairs}
    want = np.stack([got["output"][0] for got in called(source, calls, start, pairs)])
    assert far(together(adopted.model, [pcm])[0]["output"].reshape(want.shape), want) <= TOLERANCE
    assert far(heard(adopted.path, pcm, tmp_path)["output"].reshape(want.shape), want) <= TOLERANCE


class Fsmn(nn.Module):
    """Blocks of a linear layer, and a memory of 19 frames along time."""

    def __init__(self) -> None:
        super().__init__()
        self.inlet, self.outlet = nn.Linear(400, 32), nn.Linear(32, 24)
        self.blocks = nn.ModuleList([nn.Conv2d(32, 32, (20, 1), groups=32, bias=False) for _ in range(4)])

    def forward(self, speech: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        x, after = torch.relu(self.inlet(speech)), []
        for block, cache in zip(self.blocks, caches, strict=True):
            y = torch.cat([cache, x.permute(0, 2, 1)[..., None]], dim=2)
            after.append(y[:, :, -19:])
            x = torch.relu(x + block(y)[..., 0].permute(0, 2, 1))
        return torch.softmax(self.outlet(x), -1), *after


def test_fsmn_vad_online(tmp_path: Path) -> None:
    """``speech[1, T, 400], in_cache0..3[1, 128, 19, 1] -> logits[1, T, 248], out_cache0..3``."""
    torch.manual_seed(5)
    states = {f"in_cache{n}": (1, 32, 19, 1) for n in range(4)}
    given = {"speech": torch.randn(1, 6, 400), **{name: torch.zeros(shape) for name, shape in states.items()}}
    outs = ["logits", *(f"out_cache{n}" for n in range(4))]
    source = exported(Fsmn(), tmp_path / "m.onnx", given, outs, {"speech": {1: "feats_length"}, "logits": {1: "t"}})
    adopted = adoption(source, "[input]\nchunk = 3\n")
    assert adopted.manifest.input.chunk_shape == (3, 400)
    x = rows(60, 400)
    calls = [{"speech": part[None]} for part in x.reshape(-1, 3, 400)]
    start = {name: np.zeros(shape, np.float32) for name, shape in states.items()}
    got = called(source, calls, start, {f"in_cache{n}": f"out_cache{n}" for n in range(4)})
    assert far(stepped(adopted, {"speech": x})["logits"], np.concatenate([g["logits"][0] for g in got])) <= TOLERANCE


# -- enhancement -------------------------------------------------------------------------------------------------------


class Dual(nn.Module):
    """A recurrence over frequency, both ways and from nothing, and one over time, whose state is given."""

    def __init__(self) -> None:
        super().__init__()
        self.inlet, self.outlet = (
            nn.Conv2d(2, 8, (1, 8), stride=(1, 8)),
            nn.ConvTranspose2d(8, 2, (1, 9), stride=(1, 8)),
        )
        self.intra = nn.LSTM(8, 4, batch_first=True, bidirectional=True)
        self.up = nn.GRU(8, 8, batch_first=True)
        self.inter = nn.LSTM(8, 8, batch_first=True)

    def forward(self, mix: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.inlet(mix.permute(0, 3, 2, 1))  # [B, 8, T, 32]
        b, k, t, f = x.shape
        y = x.permute(0, 2, 3, 1).reshape(b * t, f, k)
        y = y + self.up(self.intra(y)[0])[0]
        y = y.reshape(b, t, f, k).permute(0, 2, 1, 3).reshape(b * f, t, k)
        z, (h, c) = self.inter(y, (h, c))
        z = (y + z).reshape(b, f, t, k).permute(0, 3, 2, 1)
        mask = torch.tanh(self.outlet(z)).permute(0, 3, 2, 1)  # [B, 257, T, 2]
        real = mix[..., 0] * mask[..., 0] - mix[..., 1] * mask[..., 1]
        imaginary = mix[..., 0] * mask[..., 1] + mix[..., 1] * mask[..., 0]
        return torch.stack([real, imaginary], -1), h, c


def test_dpcrn(tmp_path: Path) -> None:
    """``mix[1, 257, 1, 2], inter_h, inter_c[1, 32, C] -> enh, ..``: what runs over frequency may begin with nothing."""
    torch.manual_seed(7)
    given = {"mix": torch.randn(1, 257, 1, 2), "inter_h": torch.zeros(1, 32, 8), "inter_c": torch.zeros(1, 32, 8)}
    source = exported(Dual(), tmp_path / "m.onnx", given, ["enh", "inter_h_out", "inter_c_out"])
    toml = '[input]\nsample_rate = 16000\n[host]\nfft = 512\nhop = 256\nwindow = "sqrt-hann"\n'
    adopted = adoption(source, toml)
    assert adopted.said("inter_h", "batch folded into axis 1")
    pcm, window = sound(24 * 256, 2), np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512))
    before, calls, seen = np.zeros(512), [], []
    for new in pcm.reshape(-1, 256):
        before = np.concatenate([before[256:], new / 32768])
        spectrum = np.fft.rfft(before * window)
        calls.append({"mix": np.stack([spectrum.real, spectrum.imag], -1).astype(np.float32)[None, :, None]})
        seen.append(spectrum)
    start = {name: np.zeros((1, 32, 8), np.float32) for name in ("inter_h", "inter_c")}
    after, gave = np.zeros(512), []
    for got in called(source, calls, start, {"inter_h": "inter_h_out", "inter_c": "inter_c_out"}):
        after = np.concatenate([after[256:], np.zeros(256)])
        after += np.fft.irfft(got["enh"][0, :, 0, 0] + 1j * got["enh"][0, :, 0, 1]) * window
        gave.append(after[:256])
    assert far(together(adopted.model, [pcm])[0]["audio"], np.concatenate(gave)) <= TOLERANCE


class Wave(nn.Module):
    """Sound in and out, its transform in the graph, and caches by number."""

    def __init__(self) -> None:
        super().__init__()
        self.inlet, self.gru, self.outlet = nn.Linear(512, 32), nn.GRU(32, 32, batch_first=True), nn.Linear(32, 512)

    def forward(self, wav: Tensor, seen: Tensor, tail: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        frame = torch.cat([seen, wav], 1)
        y, h = self.gru(torch.tanh(self.inlet(frame))[:, None], h)
        total = self.outlet(y[:, 0]) + torch.cat([tail, torch.zeros_like(tail)], 1)
        return total[:, :256], frame[:, 256:], total[:, 256:], h


def test_fastenhancer(tmp_path: Path) -> None:
    """``wav_in[1, hop], cache_in_0..n -> wav_out[1, hop], cache_out_0..n``: two caches of one shape."""
    torch.manual_seed(8)
    shapes = {"cache_in_0": (1, 256), "cache_in_1": (1, 256), "cache_in_2": (1, 1, 32)}
    given = {"wav_in": torch.randn(1, 256), **{name: torch.zeros(shape) for name, shape in shapes.items()}}
    source = exported(Wave(), tmp_path / "m.onnx", given, ["wav_out", *(f"cache_out_{n}" for n in range(3))])
    adopted = adoption(source, '[input]\nsample_rate = 16000\n[task]\nname = "enhance"\n')
    assert adopted.manifest.outputs[0].shape == (256,)
    pcm = sound(20 * 256, 3)
    calls = [{"wav_in": (chunk / 32768).astype(np.float32)[None]} for chunk in pcm.reshape(-1, 256)]
    start = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    got = called(source, calls, start, {f"cache_in_{n}": f"cache_out_{n}" for n in range(3)})
    want = np.concatenate([g["wav_out"][0] for g in got])
    assert far(together(adopted.model, [pcm])[0]["wav_out"], want) <= TOLERANCE


class Filter(nn.Module):
    """Features beside a speaker's vector, through a recurrence to a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.mask = nn.LSTM(64 + 24, 32, 2, batch_first=True), nn.Linear(32, 64)

    def forward(self, features: Tensor, dvec: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        wide = dvec[:, None].expand(-1, features.shape[1], -1)
        y, (h, c) = self.lstm(torch.cat([features, wide], -1), (h, c))
        return torch.sigmoid(self.mask(y)) * features, h, c


def test_voicefilter_lite(tmp_path: Path) -> None:
    """``features[B, T, F], d_vector[B, D], h, c -> enhanced[B, T, F], hn, cn``: a vector that is set once a stream."""
    torch.manual_seed(9)
    given = {"features": torch.randn(1, 2, 64), "d_vector": torch.randn(1, 24)}
    given |= {"h": torch.zeros(2, 1, 32), "c": torch.zeros(2, 1, 32)}
    source = exported(Filter(), tmp_path / "m.onnx", given, ["enhanced", "hn", "cn"])
    adopted = adoption(source)
    (condition,) = adopted.manifest.conditions
    assert (condition.name, condition.shape) == ("d_vector", (24,))
    x, voice = rows(40, 64), rows(1, 24, seed=1)
    calls = [{"features": part[None], "d_vector": voice} for part in x.reshape(-1, 2, 64)]
    start = {name: np.zeros((2, 1, 32), np.float32) for name in "hc"}
    got = called(source, calls, start, {"h": "hn", "c": "cn"})
    want = np.concatenate([g["enhanced"][0] for g in got])
    assert far(stepped(adopted, {"features": x}, {"d_vector": voice})["enhanced"], want) <= TOLERANCE
    assert far(stepped(adopted, {"features": x}, {"d_vector": 0 * voice})["enhanced"], want) > 0.01


# -- three graphs of one denoiser --------------------------------------------------------------------------------------


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.erb, self.spec = nn.Conv2d(1, 4, (1, 3), padding=(0, 1)), nn.Conv2d(2, 4, (1, 3), padding=(0, 1))
        self.mix, self.gru, self.snr = (
            nn.Linear(4 * 32 + 4 * 96, 16),
            nn.GRU(16, 16, batch_first=True),
            nn.Linear(16, 1),
        )

    def forward(self, feat_erb: Tensor, feat_spec: Tensor, h0: Tensor) -> tuple[Tensor, ...]:
        e, c = torch.relu(self.erb(feat_erb)), torch.relu(self.spec(feat_spec))
        flat = torch.cat([e.permute(0, 2, 1, 3).flatten(2), c.permute(0, 2, 1, 3).flatten(2)], -1)
        emb, h1 = self.gru(torch.tanh(self.mix(flat)), h0)
        return e, c, emb, torch.sigmoid(self.snr(emb)), h1


class Bands(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.up = nn.GRU(16, 16, batch_first=True), nn.Linear(16, 128)

    def forward(self, emb: Tensor, e0: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
        y, h1 = self.gru(emb, h0)
        y = self.up(y).reshape(y.shape[0], y.shape[1], 4, 32).permute(0, 2, 1, 3)
        return torch.sigmoid((y + e0).sum(1, keepdim=True)), h1


class Filters(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.out = nn.GRU(16, 16, batch_first=True), nn.Linear(16, 96 * 10)

    def forward(self, emb: Tensor, c0: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
        y, h1 = self.gru(emb, h0)
        y = torch.tanh(self.out(y)).reshape(y.shape[0], y.shape[1], 96, 10)
        return y * c0.mean(1)[..., None], h1


GRAPHS = {
    "enc": (Encoder(), {"feat_erb": (1, 32), "feat_spec": (2, 96)}, ["e0", "c0", "emb", "lsnr"]),
    "erb_dec": (Bands(), {"emb": None, "e0": (4, 32)}, ["m"]),
    "df_dec": (Filters(), {"emb": None, "c0": (4, 96)}, ["coefs"]),
}


@pytest.mark.parametrize("graph", list(GRAPHS))
def test_deepfilternet3(tmp_path: Path, graph: str) -> None:
    """``feat_erb[1, 1, S, 32], feat_spec[1, 2, S, 96], h0 -> e0, c0, emb, lsnr, h1``, and two decoders of what that
    gives: streams of one clock side by side."""
    module, shapes, outs = GRAPHS[graph]
    examples = {n: torch.randn(1, 1, 16) if s is None else torch.randn(1, s[0], 1, s[1]) for n, s in shapes.items()}
    free = {name: {1 if shape is None else 2: "S"} for name, shape in shapes.items()}
    free |= {name: {1 if name in ("emb", "lsnr", "coefs") else 2: "S"} for name in outs}
    source = exported(module, tmp_path / "m.onnx", {**examples, "h0": torch.zeros(1, 1, 16)}, [*outs, "h1"], free)
    adopted = adoption(source, "[input]\nchunk = 1\n")
    names = [one.name for one in adopted.manifest.inputs]
    assert names == list(shapes)
    inputs = {n: rows(30, *((16,) if s is None else s), seed=k) for k, (n, s) in enumerate(shapes.items())}
    calls = [
        {n: (a[k][None, None] if shapes[n] is None else a[k][None, :, None]) for n, a in inputs.items()}
        for k in range(30)
    ]
    got = called(source, calls, {"h0": np.zeros((1, 1, 16), np.float32)}, {"h0": "h1"})
    given = stepped(adopted, inputs)
    for name in outs:
        want = np.stack([g[name].reshape(given[name].shape[1:]) for g in got])
        assert far(given[name], want) <= TOLERANCE, name


class Flat(nn.Module):
    """A frame, all states in one vector without a batch, and a limit in decibels."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.Linear(480 + 40, 40), nn.Linear(40, 480)

    def forward(self, frame: Tensor, states: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
        new = torch.tanh(self.cell(torch.cat([frame, states])))
        gain = torch.sigmoid(self.out(new))
        return frame * torch.maximum(gain, 10 ** (-torch.abs(limit) / 20)), new


def test_a_denoiser_without_a_batch_whose_limit_a_client_sets(tmp_path: Path) -> None:
    """``input_frame[480], states[n], atten_lim_db[] -> enhanced_audio_frame[480], new_states``."""
    torch.manual_seed(10)
    given = {"input_frame": torch.randn(480), "states": torch.zeros(40), "atten_lim_db": torch.tensor(12.0)}
    source = exported(Flat(), tmp_path / "m.onnx", given, ["enhanced_audio_frame", "new_states"])
    toml = '[input]\nsample_rate = 48000\nconditions = ["atten_lim_db"]\n'
    adopted = adoption(source, toml)
    assert adopted.manifest.max_batch == 1
    pcm, limit = sound(20 * 480, 4), np.array([6.0], np.float32)
    calls = [
        {"input_frame": (c / 32768).astype(np.float32), "atten_lim_db": limit.reshape(())} for c in pcm.reshape(-1, 480)
    ]
    got = called(source, calls, {"states": np.zeros(40, np.float32)}, {"states": "new_states"})
    want = np.concatenate([g["enhanced_audio_frame"] for g in got])
    heard_ = stepped(adopted, {"pcm": pcm}, {"atten_lim_db": limit.reshape(1, 1)})
    assert far(heard_["enhanced_audio_frame"], want) <= TOLERANCE


# -- wake words: windows, and nothing else to remember ----------------------------------------------------------------


class Mel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 32, 512, stride=160)

    def forward(self, x: Tensor) -> Tensor:
        return torch.log1p(torch.relu(self.conv(x[:, None] / 3000))).permute(0, 2, 1)[:, None]


class Embedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 4, (20, 8), stride=(8, 8)), nn.Conv2d(4, 96, (8, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.relu(self.one(x.permute(0, 3, 1, 2)))).permute(0, 2, 3, 1)


class Word(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(96, 16, batch_first=True), nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.out(self.lstm(x)[0][:, -1]))


def test_openwakeword_spectrogram(tmp_path: Path) -> None:
    """``input[batch, samples] -> output[batch, 1, time, 32]`` of samples as large as 16-bit ones."""
    torch.manual_seed(11)
    free = {"input": {0: "batch_size", 1: "samples"}, "output": {0: "batch_size", 2: "time"}}
    source = exported(Mel(), tmp_path / "m.onnx", {"input": torch.randn(1, 1760)}, ["output"], free)
    toml = "[input]\nsample_rate = 16000\nscale = 1.0\nchunk = 1280\noverlap = 480\n[outputs.time]\noutput = 2\n"
    adopted = adoption(source, toml)
    assert adopted.manifest.outputs[0].shape == (8, 1, 32)
    pcm = sound(10 * 1280, 5)
    padded = np.concatenate([np.zeros(480, np.int16), pcm]).astype(np.float32)
    original = Original(source)
    want = np.concatenate([original(input=padded[n * 1280 :][:1760][None])["output"][0, 0] for n in range(10)])
    assert far(together(adopted.model, [pcm])[0]["output"][:, 0], want) <= TOLERANCE


def test_openwakeword_embedding(tmp_path: Path) -> None:
    """``input_1[batch, 76, 32, 1] -> [batch, 1, 1, 96]``: eight new rows of 76, ones before the stream begins."""
    torch.manual_seed(12)
    given = {"input_1": torch.randn(1, 76, 32, 1)}
    source = exported(Embedding(), tmp_path / "m.onnx", given, ["conv2d_19"], {"input_1": {0: "batch"}})
    adopted = adoption(source, "[input]\nchunk = 8\noverlap = 68\n[start]\ninput_1 = 1.0\n")
    assert adopted.manifest.input.chunk_shape == (8, 32, 1)
    x = rows(80, 32, 1)
    padded = np.concatenate([np.ones((68, 32, 1), np.float32), x])
    original = Original(source)
    want = np.stack([original(input_1=padded[8 * n :][:76][None])["conv2d_19"].reshape(-1) for n in range(10)])
    assert far(stepped(adopted, {"input_1": x})["conv2d_19"].reshape(want.shape), want) <= TOLERANCE


def test_openwakeword_word(tmp_path: Path) -> None:
    """``[1, 16, 96] -> [1, 1]``: a recurrence that begins with nothing over a window which is seen again whole."""
    torch.manual_seed(13)
    source = exported(Word(), tmp_path / "m.onnx", {"onnx::Flatten_0": torch.randn(1, 16, 96)}, ["score"])
    adopted = adoption(source, "[input]\nchunk = 1\noverlap = 15\n")
    assert adopted.said("is reset in every call", "a whole window")
    x = rows(40, 96)
    padded, original = np.concatenate([np.zeros((15, 96), np.float32), x]), Original(source)
    want = np.stack([original(**{"onnx::Flatten_0": padded[n : n + 16][None]})["score"][0] for n in range(40)])
    assert far(stepped(adopted, {"onnx::Flatten_0": x})["score"].reshape(want.shape), want) <= TOLERANCE


# -- what can't be ----------------------------------------------------------------------------------------------------


class Masks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inlet, self.outlet = nn.Linear(161, 40), nn.Linear(40, 161)
        self.grus = nn.ModuleList([nn.GRU(40, 40, batch_first=True) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.inlet(x))
        for gru in self.grus:
            y = gru(y)[0]
        return torch.sigmoid(self.outlet(y))


@pytest.mark.parametrize("frames", [1, 4])
def test_nsnet2_forgets_and_is_refused(tmp_path: Path, frames: int) -> None:
    """``input[1, T, 161] -> output[1, T, 161]``: its own host gives it the whole recording. What the host's frames
    remember is no excuse."""
    torch.manual_seed(14)
    source = exported(Masks(), tmp_path / "m.onnx", {"input": torch.randn(1, frames, 161)}, ["output"])
    toml = '[input]\nsample_rate = 16000\n[host]\nfft = 320\nhop = 160\nwindow = "sqrt-hann"\nfeature = "power"\n'
    with pytest.raises(AdoptionError, match="forgets everything from call to call") as caught:
        adopt(source, tmp_path / "out.onnx", settings(tmp_path, toml), max_batch=2, long_chunks=20)
    assert "GRU /grus.0/GRU" in str(caught.value)
    assert "GRU /grus.1/GRU" in str(caught.value)
    assert "initial_h" in str(caught.value)
