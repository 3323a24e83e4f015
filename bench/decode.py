"""The cost of decoding: CPU time per stream and step, greedy and beam, alone and in a batch.

The input resembles that of a trained phone model: sharp posteriors, mostly blank, of random words of the lexicon, with
some probability on wrong phones. Lexicon and language model are those of ``models.speech.lm`` (12,000 words), which
needs the shared data, or those of a directory from ``python -m models.speech.lm -o DIRECTORY``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.contract.manifest import Golden, Input, Manifest, Output, Packed, Provenance
from streamer.tasks.transcribe.lexicon import parse
from streamer.tasks.transcribe.task import Transcribe

STEP_SECONDS, CHUNK = 0.03, 10


def posteriors(entries: list[tuple[str, list[int]]], vocabulary: int, streams: int, steps: int) -> NDArray[np.float32]:
    """Log posteriors [streams, steps, V]: a phone about every third step, each with an alternative, and pauses between
    words."""
    rng = np.random.default_rng(0)
    p = np.empty((streams, steps, vocabulary))
    for stream in range(streams):
        at, row = 0, np.zeros((steps, vocabulary))
        row[:, 0] = 1.0
        while at < steps:
            for phone in [*entries[rng.integers(len(entries))][1], None]:
                if at < steps and phone is not None:
                    sure = rng.uniform(0.4, 0.99)
                    row[at] = 0
                    row[at, phone], row[at, rng.integers(1, vocabulary)] = sure, (1 - sure) * 0.6
                    row[at, 0] += (1 - sure) * 0.4
                at += int(rng.integers(2, 5))
        p[stream] = row
    p = 0.995 * p / p.sum(axis=2, keepdims=True) + 0.005 * rng.dirichlet(np.full(vocabulary, 0.3), (streams, steps))
    return np.asarray(np.log(p), np.float32)


def task(tokens: list[str], lexicon: bytes, lm: bytes, decoder: dict[str, Any]) -> Transcribe:
    options = {
        "tokens": tokens,
        "units": "phones",
        "lexicon": Packed.pack(lexicon).model_dump(),
        "lm": Packed.pack(lm).model_dump(),
        "decoder": decoder,
    }
    return Transcribe(
        Manifest.model_validate(
            {
                "name": "bench",
                "version": "1",
                "task": "transcribe",
                "licence": "none",
                "input": Input(name="pcm", dtype="int16", chunk_shape=(480 * CHUNK,), sample_rate=16000),
                "states": (),
                "outputs": (Output(name="logp", dtype="float32", shape=(CHUNK, len(tokens))),),
                "latency": 0,
                "flush": 0,
                "max_batch": 64,
                "options": options,
                "provenance": Provenance(data="none", revision="none", tolerance=0.0),
                "golden": Golden(chunks=(), outputs={"logp": ()}),
            }
        )
    )


def cost(task: Transcribe, logp: NDArray[np.float32], options: dict[str, Any]) -> float:
    """Microseconds of CPU per stream and step; the first second of every stream is warm-up."""
    streams, steps, _ = logp.shape
    memories = [task.open(options) for _ in range(streams)]
    spent, counted = 0.0, 0
    for begin in range(0, steps - CHUNK + 1, CHUNK):
        outputs = {task.output: logp[:, begin : begin + CHUNK]}
        start = time.thread_time()
        task.step(memories, outputs, [CHUNK] * streams)
        if begin * STEP_SECONDS >= 1.0:
            spent, counted = spent + time.thread_time() - start, counted + CHUNK * streams
    return spent / counted * 1e6


def language(directory: Path | None) -> tuple[bytes, bytes]:
    if directory is not None:
        return (directory / "lexicon.txt").read_bytes(), (directory / "lm.bin").read_bytes()
    from models.speech.lm import english

    made = english()
    return made.lexicon, made.lm


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench decode", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--language", type=Path, help="directory with lexicon.txt and lm.bin")
    parser.add_argument("--beams", type=int, nargs="*", default=[8, 16, 32])
    arguments = parser.parse_args(argv)
    lexicon, lm = language(arguments.language)
    phones = sorted({phone for line in lexicon.decode().splitlines() for phone in line.split("\t")[1].split()})
    tokens = ["<blank>", *phones]
    beam = task(tokens, lexicon, lm, {"kind": "beam"})
    entries = parse(lexicon.decode(), tokens)
    results: dict[str, float] = {}
    decoders = {"greedy": {"decoder": "greedy"}} | {f"beam {b}": {"decoder": {"beam": b}} for b in arguments.beams}
    for name, options in decoders.items():
        for streams in (1, 8, 64):
            steps = {1: 1000, 8: 400, 64: 200}[streams]
            logp = posteriors(entries, len(tokens), streams, steps)
            results[f"{name}, batch {streams}"] = round(cost(beam, logp, options), 1)
    for name, microseconds in results.items():
        share = microseconds / (STEP_SECONDS * 1e6)
        print(f"{name:20} {microseconds:8.1f} us per stream and step, {100 * share:6.3f} % of one core per stream")
    if arguments.json:
        print(json.dumps({"us_per_stream_step": results}))
    return 0


if __name__ == "__main__":
    import sys

    raise SystemExit(main(sys.argv[1:]))
