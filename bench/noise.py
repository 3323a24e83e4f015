"""Word error rate by noise: the recordings of ``bench asr`` mixed with sounds at several levels.

The sounds are those of ``bench silence``, whose generators differ from those of training. The level is the ratio of the
power of the whole recording to that of the noise, in dB. The recordings are for reporting only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import setup
from bench.asr import Part, digit_parts, elsewhere, measure
from bench.report import finish
from bench.silence import silence
from models.speech.data import Pcm, Utterance
from streamer.engine.catalogue import resolve
from streamer.engine.model import Model

NOISES = ("pink noise, rms 300", "fan", "typing", "music")
LEVELS = (30.0, 20.0, 15.0, 10.0, 5.0)
#: Sets with a low error rate without noise, so that the effect of noise is visible.
PARTS = {"english": ("orders",), "digits": ("left-out speaker jackson", "of them children")}


def laid(pcm: Pcm, noise: NDArray[np.float64], level: float) -> Pcm:
    """``pcm`` [N] with ``noise`` [N or more] at ``level`` dB below its power."""
    power = np.mean(np.square(pcm.astype(np.float64)))
    noise = noise[: len(pcm)] / np.sqrt(np.mean(np.square(noise[: len(pcm)]))) * np.sqrt(power) * 10 ** (-level / 20)
    return np.asarray((pcm + noise).clip(-32768, 32767), np.int16)


def noisy(part: Part, sound: str, level: float, rate: int) -> Part:
    longest = max(len(u.pcm) for u in part.utterances)
    noise = np.concatenate(list(silence(sound, rate, longest / rate + 1))).astype(np.float64)
    return Part(
        part.name,
        [Utterance(u.key, u.speaker, u.text, [], u.age, laid(u.pcm, noise, level)) for u in part.utterances],
    )


def parts(name: str, rate: int) -> list[Part]:
    found = digit_parts(rate) if name == "digits" else [Part(n, u) for n, u in elsewhere().items()]
    return [part for part in found if part.name in PARTS[name] and part.utterances]


def main(argv: list[str]) -> None:
    parser = setup.parser("noise", __doc__)
    parser.add_argument("--level", type=float, action="append", help=f"dB, may be repeated; default {LEVELS}")
    given = parser.parse_args(argv)
    levels = tuple(given.level or LEVELS)
    results: dict[str, Any] = {}
    for name in [given.model] if given.model else list(PARTS):
        path = resolve(name)
        rate = Model.load(path).manifest.input.sample_rate or 16000
        for part in parts(name, rate):
            clean = measure(str(path), [part], rate)[part.name]["wer"]
            lines = {
                sound: [
                    measure(str(path), [noisy(part, sound, level, rate)], rate)[part.name]["wer"] for level in levels
                ]
                for sound in NOISES
            }
            results[f"{name}, {part.name}"] = {"clean": clean, "levels": list(levels), **lines}
    finish(
        "noise",
        results,
        columns=("model, recordings", "noise", "none", *(f"{level:g} dB" for level in levels)),
        rows=[
            (name, sound, f"{found['clean']:.1%}", *(f"{rate:.1%}" for rate in found[sound]))
            for name, found in results.items()
            for sound in NOISES
        ],
        plot=lambda axes: _plot(axes, results),
        as_json=given.json,
    )


def _plot(axes: Any, results: dict[str, Any]) -> None:
    for (name, found), style in zip(results.items(), ("-", "--", ":"), strict=False):
        for sound, colour in zip(NOISES, ("#4477aa", "#228833", "#ccbb44", "#ee6677"), strict=True):
            places = [*range(len(found["levels"]) + 1)]
            axes.plot(places, [100 * found["clean"], *(100 * w for w in found[sound])], style, color=colour, marker="o",
                      markersize=3, label=f"{name}: {sound}")  # fmt: skip
    axes.set_xticks(places, ["no noise", *(f"{level:g} dB" for level in found["levels"])])
    axes.set_xlabel("recording's power to the noise's")
    axes.set_ylabel("word error rate, %")
    axes.set_ylim(0, 100)
    axes.legend(fontsize=7)
