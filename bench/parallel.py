"""Parallel WaveNet compared with its teacher: speed, distance of the spectra, and recognised digits.

Speed: calls of the bare graphs in turns, one thread, the best of several rounds. Distance: root of the mean square
difference, in dB, between the mean log spectra of each digit over several seeds, for frames of 32 ms every 8 ms from
the start of the digit. For comparison: the teacher with other seeds, recordings of the teacher's training voices, and
stationary noise with the teacher's mean spectrum of each digit. Recognised: share of the digits that the model
``digits`` recognises, each in isolation.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from bench.generate import cached
from bench.report import RESULTS, finish
from streamer.contract.probe import run
from streamer.engine.catalogue import resolve
from streamer.engine.model import Model
from streamer.streams.generation import Generation
from streamer.tasks.generate import Audio
from streamer.tasks.transcribe.task import Transcribe, decode_all

RATE, SECONDS = 8000, 0.72
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WINDOW, HOP = 256, 64
Sound = NDArray[np.int16]
#: Sounds [digits, seeds, samples] by name.
Sounds = Mapping[str, Sound]


def spoken(model: Model, seeds: range) -> Sound:
    """Generated digits [10, seeds, samples], one stream each."""
    asked = [{"seed": seed, "conditions": {"digit": d}} for d in DIGITS for seed in seeds]
    most = model.manifest.max_batch
    pcm = [row for i in range(0, len(asked), most) for row in together(model, asked[i : i + most])]
    return np.stack(pcm).reshape(len(DIGITS), len(seeds), -1)


def together(model: Model, asked: list[dict[str, Any]]) -> list[Sound]:
    speech = Generation(model, asked)
    parts: list[list[Sound]] = [[] for _ in speech.memories]
    while speech.memories[0].position < SECONDS * RATE:
        for part, events in zip(parts, speech.step(), strict=True):
            part += [event.pcm for event in events if isinstance(event, Audio)]
    return [np.concatenate(part)[: int(SECONDS * RATE)] for part in parts]


def spectra(sound: Sound) -> NDArray[np.float64]:
    """[..., samples] -> [..., frames, bins] in dB of full scale, with a floor at -80."""
    frames = np.lib.stride_tricks.sliding_window_view(sound / 32768, WINDOW, axis=-1)[..., ::HOP, :]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW))) ** 2 / (WINDOW / 4) ** 2
    return 10 * np.log10(power + 1e-8)


def distance(found: Sound, wanted: Sound) -> float:
    """The distance in dB of two sounds [digits, any number, samples]."""
    difference = spectra(found).mean(1) - spectra(wanted).mean(1)
    return float(np.sqrt(np.mean(np.square(difference))))


def noise(like: Sound) -> Sound:
    """Stationary noise of the same shape, with the mean power spectrum of each digit."""
    shape = np.sqrt(np.mean(np.abs(np.fft.rfft(like / 32768.0)) ** 2, axis=1, keepdims=True))
    white = np.random.default_rng(1).standard_normal(like.shape)
    made = np.fft.irfft(np.fft.rfft(white) / np.sqrt(like.shape[-1]) * shape, like.shape[-1])
    return (np.clip(made, -1, 1) * 32767).astype(np.int16)


def recorded() -> Sound | None:
    """Recordings of the teacher's training voices; ``None`` without espeak-ng."""
    try:
        from models.speech.synthetic import speak
        from models.zoo.generate.spoken_digits import SPOKEN, trimmed

        clips = [
            [trimmed(speak(digit, "en-us", RATE, rate=rate, pitch=pitch)) for rate, pitch in SPOKEN[::3]]
            for digit in DIGITS
        ]
    except (FileNotFoundError, ImportError):
        return None
    size = int(SECONDS * RATE)
    whole = [[np.pad(clip[:size], (0, max(0, size - len(clip)))) for clip in row] for row in clips]
    return (np.array(whole) * 1.2).clip(-32767, 32767).astype(np.int16)


def recognised(sound: Sound) -> float:
    """The share of digits that the model ``digits`` recognises, each with half a second of silence before and more
    after it."""
    model = Model.load(resolve("digits"))
    manifest, task = model.manifest, Transcribe(model.manifest)
    rate = manifest.input.sample_rate or RATE
    flat = sound.reshape(-1, sound.shape[-1])
    quiet = np.zeros((len(flat), RATE // 2), np.int16)
    wide = np.stack([soxr.resample(row, RATE, rate) for row in np.concatenate([quiet, flat, quiet, quiet], 1)])
    count = wide.shape[1] // manifest.chunk
    chunks = np.stack(np.split(wide[:, : count * manifest.chunk].astype(np.int16), count, axis=1))
    outputs, _ = run(model, chunks)
    read = decode_all(task, list(np.concatenate(outputs[task.output], 1)))
    wanted = [digit for digit in DIGITS for _ in range(sound.shape[1])]
    return float(np.mean([text.lower() == digit for text, digit in zip(read, wanted, strict=True)]))


def speeds(models: Mapping[str, Model], rounds: int) -> dict[str, float]:
    """Samples a second of each model, alone and with 16 streams."""
    graphs = {}
    for name, model in models.items():
        samples = model.manifest.chunk * len([c for c in model.manifest.options["columns"] if c.startswith("force")])
        graphs[name] = (cached(model, 1), samples)
        graphs[f"{name}, 16 streams"] = (cached(model, 16), 16 * samples)
    best = dict.fromkeys(graphs, float("inf"))
    for _ in range(rounds):
        for name, (call, _) in graphs.items():
            start = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - start)
    return {name: samples / best[name] for name, (_, samples) in graphs.items()}


def draw(sounds: Sounds, path: Path, digits: tuple[str, ...] = ("three", "seven", "nine")) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        len(sounds), len(digits), figsize=(10, 2.2 * len(sounds)), sharex=True, sharey=True, squeeze=False
    )
    for row, (name, sound) in zip(axes, sounds.items(), strict=True):
        for cell, digit in zip(row, digits, strict=True):
            levels = spectra(sound[DIGITS.index(digit), 0]).T
            where = (0, SECONDS, 0, RATE / 2000)
            cell.imshow(levels, origin="lower", aspect="auto", vmin=-80, vmax=-10, extent=where, cmap="magma")
            cell.set_title(f"{name}: {digit}", fontsize=9)
        row[0].set_ylabel("kHz")
    for cell in axes[-1]:
        cell.set_xlabel("seconds")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench parallel", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--student", default="models/zoo/trained/parallel-digits.onnx", help="name or path")
    parser.add_argument("--teacher", default="models/zoo/trained/spoken-digits.onnx", help="name or path")
    parser.add_argument("--seeds", type=int, default=8, help="of each digit")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--picture", type=Path, default=RESULTS / "parallel.png")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    given = parser.parse_args(argv)
    models = {name: Model.load(resolve(str(getattr(given, name)))) for name in ("student", "teacher")}
    speed = speeds(models, given.rounds)
    seeds = range(1, given.seeds + 1)
    sounds = {name: spoken(model, seeds) for name, model in models.items()}
    teacher = sounds["teacher"]
    beside = {"teacher, other seeds": spoken(models["teacher"], range(101, 101 + given.seeds))}
    if (voices := recorded()) is not None:
        beside["recorded"] = voices
    beside["noise of its spectrum"] = noise(teacher)
    results: dict[str, Any] = {"samples_per_second": speed, "distance_db": {}, "recognised": {}}
    for name, sound in {**sounds, **beside}.items():
        if name != "teacher":
            results["distance_db"][name] = distance(sound, teacher)
        results["recognised"][name] = recognised(sound)
    shown = ("student", "teacher", "recorded")
    draw({name: sound for name, sound in {**sounds, **beside}.items() if name in shown}, given.picture)
    print(f"picture: {given.picture}")
    names = [*sounds, *beside, *(name for name in speed if name.endswith("streams"))]
    finish(
        "parallel",
        results,
        columns=("who", "samples/s", "times real time", "dB from the teacher", "recognised"),
        rows=[
            (
                name,
                f"{speed[name]:,.0f}" if name in speed else "",
                f"{speed[name] / RATE:.1f}" if name in speed else "",
                f"{results['distance_db'][name]:.1f}" if name in results["distance_db"] else "",
                f"{results['recognised'][name]:.0%}" if name in results["recognised"] else "",
            )
            for name in names
        ],
        as_json=given.json,
    )
    return 0
