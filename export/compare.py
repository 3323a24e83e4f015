"""``python -m export.compare FLOAT.onnx INT8.onnx [AUDIO ...]``: size, speed and agreement of two files of one model.

Without audio the judge's test signal is used. Recordings (16 bit PCM, resampled to the model's rate) are a better test.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.contract.probe import deviation, probe, run
from streamer.engine.model import Model, ModelError

__all__ = ["compare", "milliseconds"]

BATCHES = (1, 8, 32)


def milliseconds(model: Model, batch: int, rounds: int = 40) -> float:
    """The shortest time of one call, in ms per row of the batch, one thread; other work on the machine only adds."""
    chunks = probe(model.manifest.input, 2, batch, np.random.default_rng(0))
    feeds = {model.manifest.input.name: chunks[1], **run(model, chunks[:1])[1]}
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        model.run(feeds)
        best = min(best, time.perf_counter() - start)
    return 1000 * best / batch


def compare(paths: list[Path], audio: list[NDArray[np.int16]]) -> list[dict[str, Any]]:
    """Compare files with the first one; returns one row for each. ``audio``: signals at the models' rate, may be empty.

    ``ms``: time per row, by batch size. ``deviation``: largest difference of a log-probability over the largest of its
    step. ``same_token``: share of steps with the same best token. ``rms``: root mean square of the differences in nats,
    over log-probabilities above -5 in the reference.
    """
    rows: list[dict[str, Any]] = []
    reference: list[NDArray[Any]] = []
    for path in paths:
        model = Model.load(path)
        signals = [_chunked(model, a) for a in audio] or [probe(model.manifest.input, 60, 1, np.random.default_rng(1))]
        name = model.manifest.outputs[0].name
        got = [np.concatenate(list(run(model, signal)[0][name][:, 0])) for signal in signals]
        reference = reference or got
        pairs = list(zip(got, reference, strict=True))
        likely = [(a - b)[b > -5] for a, b in pairs]
        rows.append(
            {
                "file": path.name,
                "megabytes": round(path.stat().st_size / 1e6, 3),
                "ms": {str(batch): round(milliseconds(model, batch), 3) for batch in BATCHES},
                "deviation": max(deviation(a, b) for a, b in pairs),
                "rms": float(np.sqrt(np.mean(np.concatenate(likely) ** 2))),
                "same_token": float(np.mean(np.concatenate([a.argmax(-1) == b.argmax(-1) for a, b in pairs]))),
            }
        )
    return rows


def _chunked(model: Model, signal: NDArray[np.int16]) -> NDArray[np.int16]:
    """Whole chunks [n, 1, chunk] of ``signal`` [N]; a signal shorter than a chunk is padded with zeros."""
    count = max(1, len(signal) // model.manifest.chunk)
    whole = np.zeros(count * model.manifest.chunk, np.int16)
    whole[: len(signal)] = signal[: len(whole)]
    return whole.reshape(count, 1, model.manifest.chunk)


def _read(path: Path, rate: int) -> NDArray[np.int16]:
    """The first channel of a recording, resampled to ``rate``."""
    import soundfile
    import soxr

    samples, found = soundfile.read(path, dtype="int16", always_2d=True)
    first: NDArray[np.int16] = samples[:, 0]
    return first if found == rate else np.asarray(soxr.resample(first, found, rate), np.int16)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m export.compare", description=__doc__)
    parser.add_argument("reference", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("audio", type=Path, nargs="*")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    try:
        rate = Model.load(given.reference).manifest.input.sample_rate
        rows = compare([given.reference, given.other], [_read(path, rate or 16000) for path in given.audio])
    except ModelError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 1
    if given.json:
        print(json.dumps(rows))
        return 0
    print(
        f"{'file':30} {'MB':>6} "
        + "".join(f"{f'ms, batch {b}':>14}" for b in BATCHES)
        + "  deviation  rms nats  same token"
    )
    for row in rows:
        speed = "".join(f"{row['ms'][str(b)]:14.3f}" for b in BATCHES)
        print(
            f"{row['file']:30} {row['megabytes']:6.2f} {speed}  {row['deviation']:9.2e}  {row['rms']:8.4f}"
            f"  {row['same_token']:9.2%}"
        )
    first, second = rows
    faster = {b: first["ms"][str(b)] / second["ms"][str(b)] for b in BATCHES}
    print("speed-up: " + ", ".join(f"{ratio:.2f}x at batch {b}" for b, ratio in faster.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
