"""The silence law: a recogniser must write nothing without speech.

Each sound is a separate stream, many minutes long, chunk by chunk through the model and its decoder with default
settings. The sounds are generated here, differently from those of training. ``--after 60``: the transcript of the
sample recording after an hour of silence, a step of the level, or an unplugged microphone must be that of the recording
alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from bench.report import finish
from streamer.engine.catalogue import resolve
from streamer.engine.model import Model
from streamer.engine.stepper import Stepper
from streamer.tasks import create

Pcm = NDArray[np.int16]

SAMPLES = Path(__file__).parent.parent / "samples"

#: Sounds are generated in pieces of so many seconds, each with its own random numbers, to save memory.
PIECE = 10


def silence(sound: str, rate: int, seconds: float) -> Iterator[Pcm]:
    """``seconds`` of a sound of :data:`SOUNDS`, int16 in pieces of :data:`PIECE` seconds."""
    make = SOUNDS[sound]
    left, number = int(seconds * rate), 0
    while left > 0:
        wave = make(np.random.default_rng([number, *sound.encode()]), number * PIECE * rate, PIECE * rate, rate)
        yield np.clip(np.rint(wave), -32768, 32767).astype(np.int16)[:left]
        left, number = left - PIECE * rate, number + 1


Wave = NDArray[np.float64]
Make = Callable[[np.random.Generator, int, int, int], Wave]


def zeros(rng: np.random.Generator, start: int, length: int, rate: int) -> Wave:
    return np.zeros(length)


def dither(rng: np.random.Generator, start: int, length: int, rate: int) -> Wave:
    return rng.integers(0, 2, length).astype(float)


def offset(rng: np.random.Generator, start: int, length: int, rate: int) -> Wave:
    return np.full(length, 900.0)


def white(rms: float) -> Make:
    return lambda rng, start, length, rate: rng.standard_normal(length) * rms


def pink(rms: float) -> Make:
    """Noise whose power falls by 3 dB an octave."""

    def make(rng: np.random.Generator, start: int, length: int, rate: int) -> Wave:
        spectrum = np.fft.rfft(rng.standard_normal(length))
        spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
        spectrum[0] = 0
        return scaled(np.fft.irfft(spectrum, length), rms)

    return make


def hum(base: float, rms: float) -> Make:
    """Mains hum: mostly odd harmonics, and a little hiss."""

    def make(rng: np.random.Generator, start: int, length: int, rate: int) -> Wave:
        time = (start + np.arange(length)) / rate
        tones = ((1, 1.0), (2, 0.2), (3, 0.5), (5, 0.3), (7, 0.15))
        wave = sum(height * np.sin(2 * np.pi * base * k * time + k) for k, height in tones)
        return scaled(wave, rms) + rng.standard_normal(length) * 4

    return make


def fan(rng: np.random.Generator, start: int, length: int, rate: int) -> Wave:
    """Noise below about 500 Hz, modulated by the blades 23 times a second, and the motor's tone."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    frequency = np.fft.rfftfreq(length, 1 / rate)
    air = scaled(np.fft.irfft(spectrum / (1 + (frequency / 500) ** 2), length), 300)
    time = (start + np.arange(length)) / rate
    return air * (1 + 0.3 * np.sin(2 * np.pi * 23 * time)) + 60 * np.sin(2 * np.pi * 118 * time)


def typing(rng: np.random.Generator, start: int, length: int, rate: int) -> Wave:
    """Six keys a second in a quiet room: a click when a key is pressed, a softer one when it is released."""
    wave = rng.standard_normal(length) * 6
    at = 0.0
    while (at := at + rng.gamma(4, 1 / 24)) < length / rate - 0.2:
        for delay, height in ((0.0, rng.uniform(800, 4000)), (rng.uniform(0.05, 0.12), rng.uniform(200, 1000))):
            first = int((at + delay) * rate)
            time = np.arange(int(0.03 * rate)) / rate
            click = rng.standard_normal(len(time)) + 2 * np.sin(2 * np.pi * rng.uniform(1500, 4000) * time)
            wave[first : first + len(time)] += height * click * np.exp(-time * 250)
    return wave


def music(rng: np.random.Generator, start: int, length: int, rate: int) -> Wave:
    """A chord of sawtooth strings and a drum, twice a second, without a voice."""
    wave = np.zeros(length + 2 * rate)
    chords = ((0, 4, 7), (9, 12, 16), (5, 9, 12), (7, 11, 14))
    for beat in range(2 * length // rate):
        first = beat * rate // 2
        time = np.arange(rate) / rate
        for note in chords[(start // rate // 2 + beat // 4) % 4]:
            pitch = 220 * 2 ** (note / 12)
            string = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 8) if pitch * k < 0.45 * rate)
            wave[first : first + rate] += 500 * string * np.exp(-3 * time)
        wave[first : first + rate] += 2500 * np.sin(2 * np.pi * 60 * time) * np.exp(-25 * time)
        wave[first : first + rate // 10] += rng.standard_normal(rate // 10) * 300 * np.exp(-40 * time[: rate // 10])
    return wave[:length]


def scaled(wave: Wave, rms: float) -> Wave:
    return wave * (rms / np.sqrt(np.mean(np.square(wave))))


SOUNDS: dict[str, Make] = {
    "digital zeros": zeros,
    "dither of one bit": dither,
    "DC offset": offset,
    "white noise, rms 10": white(10),
    "white noise, rms 100": white(100),
    "white noise, rms 1000": white(1000),
    "pink noise, rms 300": pink(300),
    "hum of 50 Hz": hum(50, 500),
    "hum of 60 Hz": hum(60, 500),
    "fan": fan,
    "typing": typing,
    "music": music,
}


#: The sounds of :data:`SOUNDS` that count as silence.
STILL = ("digital zeros", "dither of one bit")


@dataclass(frozen=True)
class Invented:
    """The output for one sound: the words of its finals, and the number of partials with text."""

    sound: str
    words: list[str]
    partials: int


def listen(model: Model, streams: list[list[Iterator[Pcm]]]) -> list[Invented]:
    """The outputs for streams of equal length, each a list of consecutive parts, run as one batch."""
    task = create(model.manifest)
    stepper = Stepper(model, len(streams))
    memories = [task.open({}) for _ in streams]
    size, steps = model.manifest.input.chunk_shape[0], model.manifest.outputs[0].shape[0]
    words: list[list[str]] = [[] for _ in streams]
    partials = [0] * len(streams)
    for chunks in zip(*(_chunks(pieces, size) for pieces in streams), strict=True):
        outputs = stepper.step(np.stack(chunks))
        for row, events in enumerate(task.step(memories, outputs, [steps] * len(streams))):
            for event in events:
                if event.type == "final":
                    words[row] += event.text.split()
                else:
                    partials[row] += bool(event.text)
    for row, memory in enumerate(memories):
        words[row] += [word for event in task.finish(memory) for word in event.text.split()]
    return [Invented("", said, count) for said, count in zip(words, partials, strict=True)]


def _chunks(pieces: list[Iterator[Pcm]], size: int) -> Iterator[Pcm]:
    left = np.zeros(0, np.int16)
    for piece in (piece for several in pieces for piece in several):
        left = np.concatenate([left, piece])
        whole = len(left) // size * size
        yield from left[:whole].reshape(-1, size)
        left = left[whole:]
    if len(left):
        yield np.pad(left, (0, size - len(left)))


def invented(model: Model, seconds: float) -> list[Invented]:
    """The model's output for ``seconds`` of each sound."""
    rate = model.manifest.input.sample_rate or 16000
    heard = listen(model, [[silence(sound, rate, seconds)] for sound in SOUNDS])
    return [Invented(sound, h.words, h.partials) for sound, h in zip(SOUNDS, heard, strict=True)]


def spoken(name: str, rate: int) -> Pcm:
    """The sample recording of a recogniser, int16 at ``rate``."""
    path = SAMPLES / ("digits.flac" if name.startswith("digits") else "english.opus")
    pcm, recorded = soundfile.read(path, dtype="int16", always_2d=True)
    return np.asarray(soxr.resample(pcm[:, 0], recorded, rate), np.int16)


def disturbances(speech: Pcm, rate: int, seconds: float) -> dict[str, list[Iterator[Pcm]]]:
    """Streams that end with ``speech``, by the disturbance before it. The level steps down by 40 dB, and up again; an
    unplugged microphone gives zeros from one sample to the next, and a click when it is plugged in again."""

    def pieces(*parts: Pcm | Iterator[Pcm]) -> list[Iterator[Pcm]]:
        return [iter([part]) if isinstance(part, np.ndarray) else part for part in parts]

    def nothing(sound: str, length: float) -> Iterator[Pcm]:
        return silence(sound, rate, length)

    quiet = (speech / 100).astype(np.int16)
    middle = speech[: len(speech) // 2]
    click = np.array([20000, -15000, 8000, -3000, 1000], np.int16)
    return {
        **{f"{seconds / 60:g} min of {sound}": pieces(nothing(sound, seconds), speech) for sound in STILL},
        "40 dB down, then up": pieces(
            speech, nothing("dither of one bit", 3), quiet, nothing("digital zeros", 3), speech
        ),
        "a DC offset of 900": pieces(nothing("DC offset", 5), np.clip(speech + 900.0, -32768, 32767).astype(np.int16)),
        "unplugged in a word, back after 30 s": pieces(middle, nothing("digital zeros", 30), click, speech),
    }


@dataclass(frozen=True)
class After:
    """``wrong``: number of the ``words`` of the last speech that differ from those of the speech alone."""

    before: str
    wrong: int
    words: int


def after(model: Model, name: str, seconds: float) -> list[After]:
    """The same speech after each of :func:`disturbances`, compared with the speech alone.

    After silence, the speech alone starts at the same place of a chunk: a model with attention in blocks may recognise
    ambiguous words differently with other block boundaries, which is not an effect of silence.
    """
    from models.training.score import edits

    rate = model.manifest.input.sample_rate or 16000
    speech = spoken(name, rate)
    place = int(seconds * rate) % model.manifest.chunk
    at_once, placed = (listen(model, [[iter([np.zeros(lead, np.int16), speech])]])[0].words for lead in (0, place))
    found = []
    for before, pieces in disturbances(speech, rate, seconds).items():
        alone = placed if any(sound in before for sound in STILL) else at_once
        heard = listen(model, [pieces])[0].words
        # words before the last speech are ignored: the best match at the end of the transcript counts
        wrong = min(edits(alone, heard[start:]) for start in range(max(1, len(heard) - 2 * len(alone)), len(heard) + 1))
        found.append(After(before, min(wrong, edits(alone, heard)), len(alone)))
    return found


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser("python -m bench silence", description=__doc__)
    parser.add_argument("--model", action="append", help="default: all shipped recognisers")
    parser.add_argument("--minutes", type=float, default=10.0, help="of each sound (default %(default)s)")
    parser.add_argument(
        "--after",
        type=float,
        metavar="MINUTES",
        help="speech after so many minutes of silence, steps of the level, ...",
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    names = options.model or ["english", "digits"]
    if options.after is not None:
        compared = {name: after(Model.load(resolve(name)), name, 60 * options.after) for name in names}
        finish(
            "silence",
            {
                name: {one.before: {"wrong": one.wrong, "words": one.words} for one in all_}
                for name, all_ in compared.items()
            },
            columns=("model", "before the speech", "words read otherwise", "of"),
            rows=[(name, one.before, one.wrong, one.words) for name, all_ in compared.items() for one in all_],
            as_json=options.json,
        )
        return
    rows, results = [], {}
    for name in names:
        heard = invented(Model.load(resolve(name)), 60 * options.minutes)
        results[name] = {h.sound: {"words": len(h.words), "partials": h.partials} for h in heard}
        rows += [(name, h.sound, len(h.words), h.partials, " ".join(h.words[:8])) for h in heard]
    columns = ("model", "sound", f"words in {options.minutes:g} min", "partials", "first words")
    finish("silence", results, columns=columns, rows=rows, as_json=options.json)
