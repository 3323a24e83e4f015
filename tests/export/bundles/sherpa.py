"""The folders of :mod:`tests.export.bundles.graphs` through the package ``sherpa-onnx``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

sherpa_onnx = pytest.importorskip("sherpa_onnx")

#: Seconds that sherpa says a frame has, whatever a model's own hop is.
FRAME, TONES_FRAME = 0.04, 0.03


def recogniser(folder: Path, kind: str, **options: Any) -> Any:
    """``options``: of endpoints."""
    common = {"tokens": str(folder / "tokens.txt"), "num_threads": 1, **options}
    make = sherpa_onnx.OnlineRecognizer
    if (folder / "tokens.txt").is_file() and list(folder.glob("encoder*")):
        parts = {part: str(next(folder.glob(f"{part}*.onnx"))) for part in ("encoder", "decoder", "joiner")}
        return make.from_transducer(**common, **parts, decoding_method="greedy_search")
    model = str(next(path for path in folder.glob("*.onnx") if not path.name.endswith(".streamer.onnx")))
    how = {
        "zipformer2-ctc": make.from_zipformer2_ctc,
        "nemo-ctc": make.from_nemo_ctc,
        "wenet-ctc": make.from_wenet_ctc,
        "t-one": make.from_t_one_ctc,
    }
    if kind == "t-one":
        common["sample_rate"] = 8000
    return how[kind.removesuffix("-bytes")](model=model, **common)


class Sherpa:
    """One stream. Tokens are (frame, text) since the stream's or the segment's start."""

    def __init__(self, folder: Path, kind: str, **options: Any) -> None:
        self.rate, self.frame = (8000, TONES_FRAME) if kind == "t-one" else (16000, FRAME)
        self.all = recogniser(folder, kind, **options)
        self.stream = self.all.create_stream()

    def hear(self, pcm: NDArray[np.int16]) -> None:
        self.stream.accept_waveform(self.rate, pcm.astype(np.float32) / 32768)
        while self.all.is_ready(self.stream):
            self.all.decode_stream(self.stream)

    def tokens(self) -> list[tuple[int, str]]:
        result = self.all.get_result_all(self.stream)
        times = (round(time / self.frame) for time in result.timestamps)
        return list(zip(times, result.tokens, strict=True))

    def segments(self, pcm: NDArray[np.int16], step: int, *, again: bool) -> list[list[str]]:
        """With endpoints: the tokens between them, ``step`` samples at a time. ``again``: it is reset at each."""
        found: list[list[str]] = []
        done, ended = 0, False
        for at in range(0, len(pcm), step):
            self.hear(pcm[at : at + step])
            before, ended = ended, self.all.is_endpoint(self.stream)
            if ended and (again or not before):
                texts = [text for _, text in self.tokens()]
                found.append(texts[done:])
                done = 0 if again else len(texts)
            if ended and again:
                self.all.reset(self.stream)
        return [*found, [text for _, text in self.tokens()][done:]]
