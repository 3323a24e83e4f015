"""``python -m tests.export.bundles.graphs FOLDER [KIND ...]``: folders as public streaming recognisers are published,
with random weights: names, shapes, types, batch axes and metadata as sherpa-onnx wants them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tests.export.adopt.support import exported
from tests.export.bundles.bodies import WIDTH, Cache, Caches, Front, Joiner, Out, Predictor

#: Pieces of words, bytes, and a token without text.
PIECES = ["<blk>", "<sos/eos>", "<unk>", *"▁THE S ▁A ING ▁WE ED ▁ E T ▁CAN N'T ▁<0xC3> <0xA9> É OU ▁IT R".split()]
#: Byte-level BPE: letters that stand for bytes.
BYTES = ["<blk>", "<sos/eos>", "<unk>", *"▁ƋţŅ ▁ƌĸī ▁HE LLO ▁Ƌ ţ Ņ ▁ƐŐ ť ŵ S ▁OK ▁A".split()]
CHARACTERS = ["<blank>", "<unk>", *"你好世界我们在中国人大小上下来去", "▁OK"]
LETTERS = [*"abcdefghijklmnopqrstuvwxyzäöüßéèà", " ", "<blk>"]

N = "N"


def tokens_txt(folder: Path, tokens: Sequence[str]) -> None:
    lines = [f"{'' if token == ' ' else token} {number}\n" for number, token in enumerate(tokens)]
    (folder / "tokens.txt").write_text("".join(lines), "utf-8")


def axes(cache: Cache) -> dict[int, str]:
    return {} if cache.batch is None else {cache.batch: N}


# -- k2 ----------------------------------------------------------------------------------------------------------------

T, SHIFT = 45, 32
STACKS, LEFT, KERNEL = (1, 2), (8, 4), 5
ZIPFORMER2 = {
    "model_type": "zipformer2",
    "version": "1",
    "T": f"{T}",
    "decode_chunk_len": f"{SHIFT}",
    "num_encoder_layers": "1,2",
    "encoder_dims": "8,12",
    "query_head_dims": "2,2",
    "value_head_dims": "3,2",
    "num_heads": "2,4",
    "cnn_module_kernels": f"{KERNEL},{KERNEL}",
    "left_context_len": "8,4",
}


def zipformer2_caches() -> list[Cache]:
    found, layer = [], 0
    for stack, layers in enumerate(STACKS):
        left, dim = LEFT[stack], (8, 12)[stack]
        key, value = (4, 8)[stack], (6, 8)[stack]
        for _ in range(layers):
            found += [
                Cache(f"cached_key_{layer}", (left, 1, key), 1, 0),
                Cache(f"cached_nonlin_attn_{layer}", (1, 1, left, 3 * dim // 4), 1, 2),
                Cache(f"cached_val1_{layer}", (left, 1, value), 1, 0),
                Cache(f"cached_val2_{layer}", (left, 1, value), 1, 0),
                Cache(f"cached_conv1_{layer}", (1, dim, KERNEL // 2), 0, 2),
                Cache(f"cached_conv2_{layer}", (1, dim, KERNEL // 2), 0, 2),
            ]
            layer += 1
    return [*found, Cache("embed_states", (1, 128, 3, 19), 0, 2)]


class Zipformer2(nn.Module):
    """``tokens`` 0: an encoder."""

    def __init__(self, caches: Sequence[Cache], tokens: int) -> None:
        super().__init__()
        self.front, self.caches = Front(SHIFT // 4, 4, skip=3), Caches(caches)
        self.out = Out(tokens, 0) if tokens else None

    def forward(self, x: Tensor, *old: Tensor) -> tuple[Tensor, ...]:
        *caches, processed = old
        y, heard = self.front(x)
        y = y + 0.3 * torch.sin(processed.to(torch.float32) / 40)[:, None, None]  # it counts, and that shows
        y, new = self.caches(y, caches)
        said = torch.cat([y, heard], 2) if self.out is None else self.out(y, heard).log_softmax(-1)
        return said, *new, processed + SHIFT // 2


def zipformer2(path: Path, tokens: int) -> Path:
    caches = zipformer2_caches()
    given = {"x": torch.zeros(1, T, 80)} | {cache.name: torch.zeros(cache.shape) for cache in caches}
    given["processed_lens"] = torch.zeros(1, dtype=torch.int64)
    result = "log_probs" if tokens else "encoder_out"
    free = {cache.name: axes(cache) for cache in caches} | {"x": {0: N}, result: {0: N}, "processed_lens": {0: N}}
    free |= {f"new_{name}": free[name] for name in given if name != "x"}
    outputs = [result, *(f"new_{name}" for name in given if name != "x")]
    return exported(Zipformer2(caches, tokens), path, given, outputs, free, ZIPFORMER2)


ZIPFORMER = {
    "model_type": "zipformer",
    "T": "39",
    "decode_chunk_len": f"{SHIFT}",
    "num_encoder_layers": "1,2",
    "encoder_dims": "8,8",
    "attention_dims": "6,6",
    "cnn_module_kernels": f"{KERNEL},{KERNEL}",
    "left_context_len": "8,4",
}


def zipformer_caches() -> list[Cache]:
    """In sherpa's order: kind by kind, and in each stack by stack."""
    kinds: dict[str, Callable[[int, int, int], Cache]] = {
        "key": lambda n, layers, left: Cache(f"cached_key_{n}", (layers, left, 1, 6), 2, 1),
        "val": lambda n, layers, left: Cache(f"cached_val_{n}", (layers, left, 1, 3), 2, 1),
        "val2": lambda n, layers, left: Cache(f"cached_val2_{n}", (layers, left, 1, 3), 2, 1),
        "conv1": lambda n, layers, left: Cache(f"cached_conv1_{n}", (layers, 1, 8, KERNEL - 1), 1, 3),
        "conv2": lambda n, layers, left: Cache(f"cached_conv2_{n}", (layers, 1, 8, KERNEL - 1), 1, 3),
    }
    return [make(n, STACKS[n], LEFT[n]) for make in kinds.values() for n in range(2)]


class Zipformer(nn.Module):
    def __init__(self, caches: Sequence[Cache]) -> None:
        super().__init__()
        self.front, self.caches = Front(SHIFT // 4, 4), Caches(caches)
        self.average = nn.ModuleList([nn.Linear(WIDTH, 8) for _ in STACKS])
        self.back = nn.ModuleList([nn.Linear(8, WIDTH) for _ in STACKS])

    def forward(self, x: Tensor, *old: Tensor) -> tuple[Tensor, ...]:
        y, heard = self.front(x)
        lengths, averages = old[:2], old[2:4]
        new_lengths, new_averages = [], []
        for n, (length, average) in enumerate(zip(lengths, averages, strict=True)):
            before = length.to(torch.float32)[:, :, None]
            total = average * before + self.average[n](y).sum(1)[None]
            new_averages.append(total / (before + y.shape[1]))
            new_lengths.append(length + y.shape[1])
            y = y + 0.5 * torch.tanh(self.back[n](new_averages[-1].mean(0)))[:, None]
        y, new = self.caches(y, old[4:])
        return torch.cat([y, heard], 2), *new_lengths, *new_averages, *new


def zipformer(path: Path) -> Path:
    caches = zipformer_caches()
    given = {"x": torch.zeros(1, 39, 80)}
    given |= {f"cached_len_{n}": torch.zeros(layers, 1, dtype=torch.int64) for n, layers in enumerate(STACKS)}
    given |= {f"cached_avg_{n}": torch.zeros(layers, 1, 8) for n, layers in enumerate(STACKS)}
    given |= {cache.name: torch.zeros(cache.shape) for cache in caches}
    free = {cache.name: axes(cache) for cache in caches} | {"x": {0: N}, "encoder_out": {0: N}}
    free |= {f"cached_{kind}_{n}": {1: N} for kind in ("len", "avg") for n in range(2)}
    free |= {f"new_{name}": free[name] for name in given if name != "x"}
    outputs = ["encoder_out", *(f"new_{name}" for name in given if name != "x")]
    return exported(Zipformer(caches), path, given, outputs, free, ZIPFORMER)


LSTM = {
    "model_type": "lstm",
    "T": "9",
    "decode_chunk_len": "4",
    "num_encoder_layers": "2",
    "d_model": f"{WIDTH}",
    "rnn_hidden_size": "16",
}


class Recurrent(nn.Module):
    """Two layers with a projection, one frame a call."""

    def __init__(self) -> None:
        super().__init__()
        self.front = Front(1, 4, skip=2)
        self.gates = nn.ModuleList([nn.Linear(2 * WIDTH, 4 * 16) for _ in range(2)])
        self.project = nn.ModuleList([nn.Linear(16, WIDTH) for _ in range(2)])

    def forward(self, x: Tensor, state0: Tensor, state1: Tensor) -> tuple[Tensor, ...]:
        y, heard = self.front(x)
        out, hidden, cells = y[:, 0], [], []
        for n in range(2):
            enter, forget, cell, leave = self.gates[n](torch.cat([out, state0[n]], 1)).chunk(4, dim=1)
            cells.append(torch.sigmoid(forget + 1) * state1[n] + torch.sigmoid(enter) * torch.tanh(cell))
            out = self.project[n](torch.sigmoid(leave) * torch.tanh(cells[n]))
            hidden.append(out)
        return torch.cat([y + 2 * out[:, None], heard], 2), torch.stack(hidden), torch.stack(cells)


def lstm(path: Path) -> Path:
    given = {"x": torch.zeros(1, 9, 80), "state0": torch.zeros(2, 1, WIDTH), "state1": torch.zeros(2, 1, 16)}
    free = {"x": {0: N}, "encoder_out": {0: N}}
    free |= {name: {1: N} for name in ("state0", "state1", "new_state0", "new_state1")}
    return exported(Recurrent(), path, given, ["encoder_out", "new_state0", "new_state1"], free, LSTM)


CONFORMER = {
    "model_type": "conformer",
    "T": "39",
    "decode_chunk_len": f"{SHIFT}",
    "pad_length": "7",
    "left_context": "16",
    "encoder_dim": "8",
    "num_encoder_layers": "2",
    "cnn_module_kernel": f"{KERNEL}",
    "right_context": "0",
    "chunk_size": "8",
}
CONFORMER_CACHES = [
    Cache("cached_attn", (2, 16, 1, 8), 2, 1),
    Cache("cached_conv", (2, KERNEL - 1, 1, 8), 2, 1),
]


class Conformer(nn.Module):
    """Hides what of the left context is not there yet."""

    def __init__(self) -> None:
        super().__init__()
        self.front, self.caches = Front(SHIFT // 4, 4), Caches(CONFORMER_CACHES)

    def forward(self, x: Tensor, attn: Tensor, conv: Tensor, processed: Tensor) -> tuple[Tensor, ...]:
        y, heard = self.front(x)
        back = 16 - torch.arange(16 + SHIFT // 4)  # frames before this call
        seen = (back[None] <= processed[:, None]).to(torch.float32)
        y, new = self.caches.all[0](y, attn + 0.3, seen)
        y, conv = self.caches.all[1](y, conv)
        return torch.cat([y, heard], 2), new, conv


def conformer(path: Path) -> Path:
    given = {"x": torch.zeros(1, 39, 80)} | {cache.name: torch.zeros(cache.shape) for cache in CONFORMER_CACHES}
    given["processed_lens"] = torch.zeros(1, dtype=torch.int64)
    free = {"x": {0: N}, "encoder_out": {0: N}, "processed_lens": {0: N}}
    free |= {f"{new}{cache.name}": {2: N} for cache in CONFORMER_CACHES for new in ("", "new_")}
    return exported(Conformer(), path, given, ["encoder_out", "new_cached_attn", "new_cached_conv"], free, CONFORMER)


def transducer(folder: Path, encoder: Callable[[Path], object], tokens: Sequence[str], context: int = 2) -> None:
    tail = "-epoch-99-avg-1-chunk-16-left-128.onnx"
    size = len(tokens)
    encoder(folder / f"encoder{tail}")
    exported(
        Predictor(size, context),
        folder / f"decoder{tail}",
        {"y": torch.zeros(1, context, dtype=torch.int64)},
        ["decoder_out"],
        {"y": {0: N}, "decoder_out": {0: N}},
        {"context_size": str(context), "vocab_size": str(size)},
    )
    exported(
        Joiner(size),
        folder / f"joiner{tail}",
        {"encoder_out": torch.zeros(1, WIDTH + 1), "decoder_out": torch.zeros(1, WIDTH)},
        ["logit"],
        {"encoder_out": {0: N}, "decoder_out": {0: N}, "logit": {0: N}},
        {"joiner_dim": str(WIDTH)},
    )
    tokens_txt(folder, tokens)


# -- NeMo, WeNet, T-one ------------------------------------------------------------------------------------------------

NEMO_CACHES = [Cache("cache_last_channel", (1, 2, 10, 8), 0, 2), Cache("cache_last_time", (1, 2, 8, 4), 0, 3)]


def nemo_metadata(tokens: int) -> dict[str, str]:
    said = {"window_size": "57", "chunk_shift": "48", "subsampling_factor": "8", "normalize_type": "NA"}
    for cache in NEMO_CACHES:
        said |= {f"{cache.name}_dim{axis}": str(size) for axis, size in enumerate(cache.shape) if axis}
    return said | {"vocab_size": str(tokens - 1), "model_type": "EncDecHybridRNNTCTCBPEModel"}


class Nemo(nn.Module):
    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.front, self.caches, self.out = Front(6, 8, skip=9), Caches(NEMO_CACHES), Out(tokens, tokens - 1)

    def forward(self, x: Tensor, length: Tensor, channel: Tensor, time: Tensor, count: Tensor) -> tuple[Tensor, ...]:
        y, heard = self.front(x.transpose(1, 2))
        back = 10 - torch.arange(16)
        seen = (back[None] <= count[:, None]).to(torch.float32)
        y, channel = self.caches.all[0](y, channel + 0.2, seen)
        y, time = self.caches.all[1](y, time)
        steps = torch.div(length, 8, rounding_mode="floor")
        return self.out(y, heard).log_softmax(-1), steps, channel, time, torch.clamp(count + 6, max=10)


def nemo(folder: Path, tokens: Sequence[str]) -> None:
    given = {"audio_signal": torch.zeros(1, 80, 57), "length": torch.tensor([57])}
    given |= {cache.name: torch.zeros(cache.shape) for cache in NEMO_CACHES}
    given["cache_last_channel_len"] = torch.zeros(1, dtype=torch.int64)
    outputs = ["logprobs", "encoded_lengths", "cache_last_channel_next", "cache_last_time_next"]
    outputs.append("cache_last_channel_next_len")
    free: dict[str, Mapping[int, str]] = {name: {0: "B"} for name in [*given, *outputs]}
    free["audio_signal"] = {0: "B", 2: "T"}
    exported(Nemo(len(tokens)), folder / "model.onnx", given, outputs, free, nemo_metadata(len(tokens)))
    tokens_txt(folder, tokens)


CHUNK, LEFT_CHUNKS = 16, 4
REQUIRED = CHUNK * LEFT_CHUNKS
WENET_CACHES = [Cache("attn_cache", (2, 2, REQUIRED, 8), None, 2), Cache("conv_cache", (2, 1, 8, 4), None, 3)]


class Wenet(nn.Module):
    """Batch 1: the caches have no axis for it."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.front, self.caches, self.out = Front(CHUNK, 4, loud=14.0), Caches(WENET_CACHES), Out(tokens, 0)

    def forward(
        self, x: Tensor, offset: Tensor, required: Tensor, attn: Tensor, conv: Tensor, mask: Tensor
    ) -> tuple[Tensor, ...]:
        y, heard = self.front(x)
        y = y + 0.3 * torch.sin((offset - required).to(torch.float32) / 40)
        y, attn = self.caches.all[0](y, attn + 0.2, mask[0].to(torch.float32))
        y, conv = self.caches.all[1](y, conv)
        return self.out(y, heard).log_softmax(-1), attn, conv


def wenet(folder: Path, tokens: Sequence[str]) -> None:
    given = {
        "x": torch.zeros(1, 67, 80),
        "offset": torch.tensor([REQUIRED]),
        "required_cache_size": torch.tensor([REQUIRED]),
    }
    given |= {cache.name: torch.zeros(cache.shape) for cache in WENET_CACHES}
    given["attn_mask"] = torch.ones(1, 1, REQUIRED + CHUNK, dtype=torch.bool)
    outputs = ["log_probs", "next_att_cache", "next_conv_cache"]
    metadata = {
        "model_type": "wenet_ctc", "head": "2", "num_blocks": "2", "output_size": "8", "cnn_module_kernel": "5",
        "right_context": "6", "subsampling_factor": "4", "vocab_size": str(len(tokens)),
    }  # fmt: skip
    exported(Wenet(len(tokens)), folder / "model-streaming.onnx", given, outputs, {"x": {1: "T"}}, metadata)
    tokens_txt(folder, tokens)


class Tone(nn.Module):
    """Frames of 30 ms of sound; half precision between the calls."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.bands = nn.Conv1d(1, WIDTH, 240, stride=240, bias=False)
        self.cell = nn.GRU(WIDTH, 20, batch_first=True)
        self.narrow, self.out = nn.Linear(20, WIDTH), Out(tokens, tokens - 1)

    def forward(self, signal: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        sound = signal.to(torch.float32).transpose(1, 2) / 32768
        frames = self.bands(sound).transpose(1, 2)  # [B, 10, width]
        power = sound.reshape(sound.shape[0], 10, 240).square().mean(2, keepdim=True)
        y, hidden = self.cell(frames / (power + 1e-6).sqrt(), state.to(torch.float32)[None])
        heard = torch.sigmoid(power.add(1e-9).log() + 9)
        return self.out(torch.tanh(3 * self.narrow(y)), heard).log_softmax(-1), hidden[0].to(torch.float16)


def t_one(folder: Path, tokens: Sequence[str]) -> None:
    given = {"signal": torch.zeros(1, 2400, 1, dtype=torch.int32), "state": torch.zeros(1, 20, dtype=torch.float16)}
    free = {name: {0: "B"} for name in ("signal", "state", "logprobs", "state_next")}
    said = {"model_type": "t-one", "frame_length_ms": "300", "state_dim": "20", "sample_rate": "8000"}
    exported(Tone(len(tokens)), folder / "model.onnx", given, ["logprobs", "state_next"], free, said)
    tokens_txt(folder, tokens)


def zipformer2_ctc(folder: Path, tokens: Sequence[str]) -> None:
    zipformer2(folder / "ctc-epoch-20-avg-1-chunk-16-left-128.onnx", len(tokens))
    tokens_txt(folder, tokens)


KINDS: dict[str, Callable[[Path], None]] = {
    "zipformer2-ctc": lambda folder: zipformer2_ctc(folder, PIECES),
    "zipformer2-ctc-bytes": lambda folder: zipformer2_ctc(folder, BYTES),
    "zipformer2": lambda folder: transducer(folder, lambda path: zipformer2(path, 0), PIECES),
    "zipformer": lambda folder: transducer(folder, zipformer, CHARACTERS),
    "lstm": lambda folder: transducer(folder, lstm, PIECES, context=1),
    "conformer": lambda folder: transducer(folder, conformer, BYTES),
    "nemo-ctc": lambda folder: nemo(folder, [*PIECES[2:], "<blk>"]),
    "wenet-ctc": lambda folder: wenet(folder, CHARACTERS),
    "t-one": lambda folder: t_one(folder, LETTERS),
}


def make(kind: str, folder: Path, seed: int = 0) -> Path:
    """Writes the graphs and ``tokens.txt`` into ``folder``, which it makes."""
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    KINDS[kind](folder)
    return folder


if __name__ == "__main__":
    for name in sys.argv[2:] or KINDS:
        print(make(name, Path(sys.argv[1]) / name))
