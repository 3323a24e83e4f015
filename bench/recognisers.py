"""English recognisers on the same clips: own models, with and without a second pass, Whisper on whole clips, and
PocketSphinx.

``python -m bench asr --peers`` prints the table. Every transcript is cached, so that a stopped run can be continued;
``--again`` deletes them.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from bench.report import finish
from bench.words import plain
from models.speech import data
from models.training.score import bootstrap, edits
from streamer.engine.catalogue import resolve
from streamer.metrics import Metrics
from streamer.settings import Settings
from streamer.streams.registry import Registry
from streamer.streams.revision import Heard
from streamer.streams.whisper import Whisper

__all__ = ["peers"]

RATE = 16000
#: Without ``whole``: every so-many-th speaker, by name, of each age group of speechocean762's test part.
EVERY = 8


@dataclass(frozen=True)
class Clip:
    key: str
    part: str
    speaker: str
    text: str
    pcm: data.Pcm


class Result(NamedTuple):
    """``cpu``: CPU seconds of all threads. ``late``: CPU seconds from an endpoint to its final; wall-clock time is
    longer on a busy machine."""

    text: str
    cpu: float
    late: float


System = Callable[[data.Pcm], Result]


def clips(whole: bool) -> list[Clip]:
    """The clips of all report sets. In Common Voice each clip counts as a speaker; in LJ Speech, too, which has one
    reader."""
    root = data.data_folder() / "speech"
    found: list[Clip] = []

    def listed(folder: str) -> Iterator[dict[str, str]]:
        with (root / folder / "utterances.csv").open(newline="") as file:
            yield from csv.DictReader(file)

    def add(part: str, folder: str, path: str, speaker: str, text: str) -> None:
        found.append(Clip(f"{folder}/{path}", part, speaker, text, data.read_audio(root / folder / path, RATE)))

    for row in listed("commonvoice"):
        add("Common Voice", "commonvoice", row["path"], row["path"], row["text"])
    for row in listed("ljspeech"):
        add("LJ Speech", "ljspeech", row["path"], row["path"], row["text"])
    for row in listed("orders"):
        if row["part"] == "report" and row["agree"] == "1":
            add("orders", "orders", row["path"], row["path"], row["base"])
    rows = list(listed("speechocean762/test"))
    for part, old in (("learners, adults", True), ("learners, children", False)):
        mine = [row for row in rows if (int(row["age"]) >= 16) == old]
        names = sorted({row["speaker"] for row in mine})[:: 1 if whole else EVERY]
        for row in mine:
            if row["speaker"] in names:
                add(part, "speechocean762/test", row["path"], row["speaker"], row["text"])
    return found


# -- systems -----------------------------------------------------------------------------------------------------------


def whisper(folder: Path) -> System:
    """Whisper on the whole clip, as for a file."""
    from faster_whisper import WhisperModel

    model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1, local_files_only=True)

    def hear(pcm: data.Pcm) -> Result:
        begin = time.process_time()
        sound = pcm.astype(np.float32) / np.float32(32768)
        segments, _ = model.transcribe(
            sound, language="en", beam_size=5, temperature=0.0, no_repeat_ngram_size=3, condition_on_previous_text=False
        )
        text = " ".join(segment.text for segment in segments)
        spent = time.process_time() - begin
        return Result(text, spent, spent)

    return hear


def pocketsphinx() -> System:
    """PocketSphinx with its stock US-English acoustic and language model."""
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=RATE, loglevel="FATAL")

    def hear(pcm: data.Pcm) -> Result:
        begin = time.process_time()
        decoder.start_utt()
        decoder.process_raw(np.ascontiguousarray(pcm).tobytes(), full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        return Result("" if found is None else found.hypstr, time.process_time() - begin, 0.0)

    return hear


class Timed:
    """A second recogniser; ``spent``: CPU seconds for each final, with those of the first model, about a hundredth."""

    def __init__(self, name: str) -> None:
        self._model = Whisper(name)
        self.rate, self.spent = self._model.rate, [0.0]

    def hear(self, sound: NDArray[np.float32]) -> Heard:
        begin = time.process_time()
        found = self._model.hear(sound)
        self.spent.append(time.process_time() - begin)
        return found


def streaming(model: str, revise: str = "") -> System:
    """Streaming recognition as in the daemon; returns the joined finals."""
    settings = Settings(
        models=(str(resolve(model)),), lanes=1, max_batch=1, capacity=2, buffer_seconds=60.0, revise_seconds=600.0,
        max_load=0, overload_seconds=3600,
    )  # fmt: skip
    second = Timed(revise) if revise else None
    registry = Registry(settings, Metrics(CollectorRegistry()), recogniser=second)
    registry.load()

    def hear(pcm: data.Pcm) -> Result:
        texts: list[str] = []
        over = threading.Event()

        def sink(events: list[dict[str, Any]]) -> None:
            for event in events:
                if event["type"] == "final":
                    texts.append(event["text"])
                elif event["type"] == "error":
                    raise RuntimeError(event["message"])
                elif event["type"] == "end":
                    over.set()

        begin = time.process_time()
        session = registry.open(model=None, sample_rate=RATE, sink=sink, options={"partials": False})
        session.feed(np.ascontiguousarray(pcm).tobytes())
        session.end()
        if not over.wait(600):
            raise RuntimeError("a clip did not end in ten minutes")
        late = 0.0 if second is None else second.spent[-1]
        return Result(" ".join(texts), time.process_time() - begin, late)

    return hear


def systems(models: Sequence[str], folder: Path | None, second: str) -> dict[str, tuple[Callable[[], System], int]]:
    """The systems by name: a function that makes it, and its size in bytes."""
    import pocketsphinx as package

    found: dict[str, tuple[Callable[[], System], int]] = {}
    for model in models:
        size = resolve(model).stat().st_size
        found[model] = (lambda model=model: streaming(model)), size  # type: ignore[misc]
        if folder is not None and (folder / second).is_dir():
            path = folder / second
            make = lambda model=model, path=path: streaming(model, str(path))  # type: ignore[misc]  # noqa: E731
            found[f"{model} + {second}"] = make, size + _bytes(path)
    for path in sorted(folder.iterdir()) if folder is not None else ():
        if (path / "model.bin").is_file():
            found[f"whisper-{path.name}, whole clips"] = (lambda path=path: whisper(path)), _bytes(path)  # type: ignore[misc]
    found["PocketSphinx 5"] = pocketsphinx, _bytes(Path(package.get_model_path()) / "en-us")
    return found


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


# -- the table ---------------------------------------------------------------------------------------------------------


def heard(name: str, make: Callable[[], System], size: int, recordings: Sequence[Clip], again: bool) -> list[Result]:
    """The results of a system, whose clips are transcribed once and cached by its name and size."""
    mark = hashlib.sha256(f"{name} {size}".encode()).hexdigest()[:12]
    path = data.cache_folder() / f"peers-{mark}.jsonl"
    if again:
        path.unlink(missing_ok=True)
    known: dict[str, Result] = {}
    if path.exists():
        known = {row[0]: Result(*row[1:]) for row in map(json.loads, path.read_text().splitlines())}
    made = cache(make)
    with path.open("a") as file:
        for clip in recordings:
            if clip.key not in known:
                known[clip.key] = made()(clip.pcm)
                file.write(json.dumps([clip.key, *known[clip.key]]) + "\n")
                file.flush()
    return [known[clip.key] for clip in recordings]


def score(recordings: Sequence[Clip], results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Word error rate and its interval over speakers, by part."""
    found: dict[str, dict[str, float]] = {}
    for part in dict.fromkeys(clip.part for clip in recordings):
        mine = [(clip, result) for clip, result in zip(recordings, results, strict=True) if clip.part == part]
        said = [plain(clip.text) for clip, _ in mine]
        wrong = [edits(words, plain(result.text)) for words, (_, result) in zip(said, mine, strict=True)]
        counts = [len(words) for words in said]
        low, high = bootstrap(wrong, counts, [clip.speaker for clip, _ in mine])
        found[part] = {"wer": sum(wrong) / sum(counts), "low": low, "high": high, "words": sum(counts), "n": len(mine)}
    return found


def peers(
    models: Sequence[str],
    *,
    folder: Path | None,
    second: str = "base",
    only: Sequence[str] = (),
    sets: Sequence[str] = (),
    whole: bool = False,
    again: bool = False,
    as_json: bool = False,
) -> None:
    """Measure and print. ``folder``: of Whisper models in CTranslate2's format; ``second``: the one of the second pass.
    ``only``: systems whose names start with one of these; ``sets``: parts, empty for all."""
    recordings = [clip for clip in clips(whole) if not sets or clip.part in sets]
    seconds = sum(len(clip.pcm) for clip in recordings) / RATE
    results: dict[str, Any] = {}
    for name, (make, size) in systems(models, folder, second).items():
        if only and not name.startswith(tuple(only)):
            continue
        got = heard(name, make, size, recordings, again)
        cpu = sum(result.cpu for result in got) / seconds
        results[name] = {
            "parts": score(recordings, got),
            "cpu": cpu,
            "streams": 1 / cpu,
            "late": float(np.median([result.late for result in got])),
            "bytes": size,
        }
    parts = list(dict.fromkeys(clip.part for clip in recordings))
    rows = [
        (
            name,
            *(
                f"{r['parts'][p]['wer']:.1%}\n({r['parts'][p]['low']:.0%} to {r['parts'][p]['high']:.0%})"
                for p in parts
            ),
            f"{r['cpu']:.3f}",
            f"{r['streams']:.1f}",
            f"{r['late']:.2f}",
            f"{r['bytes'] / 2**20:.0f}",
        )
        for name, r in results.items()
    ]
    counts = [f"{p} ({next(iter(results.values()))['parts'][p]['n']})" for p in parts]
    finish(
        "asr-peers",
        results,
        columns=("system", *counts, "CPU s per s", "streams a core", "endpoint to final, CPU s", "MiB"),
        rows=rows,
        plot=lambda axes: _bars(axes, results, parts),
        as_json=as_json,
    )


def default_folder() -> Path | None:
    named = os.environ.get("STREAMER_WHISPER")
    return Path(named) if named else None


def _bars(axes: Any, results: dict[str, Any], parts: Sequence[str]) -> None:
    height = 0.8 / len(results)
    for i, (name, r) in enumerate(results.items()):
        wer = [100 * r["parts"][p]["wer"] for p in parts]
        spread = [
            [100 * (r["parts"][p]["wer"] - r["parts"][p]["low"]) for p in parts],
            [100 * (r["parts"][p]["high"] - r["parts"][p]["wer"]) for p in parts],
        ]
        axes.barh([k + i * height for k in range(len(parts))], wer, height, xerr=spread, label=name, capsize=2)
    axes.set_yticks([k + 0.4 for k in range(len(parts))], parts)
    axes.invert_yaxis()
    axes.set_xlabel("word error rate, % (95 % interval over speakers)")
    axes.legend(fontsize=7)
