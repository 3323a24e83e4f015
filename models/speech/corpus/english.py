"""``python -m models corpus english``: makes hours of English for training, shard by shard; ``corpus digits``: strings
of digits by learners and children.

Shard ``i`` depends only on the seed and ``i``, and any run of consecutive shards has about the same shares of sources.
So a run can be killed and resumed, or extended by more hours, and training can start with the finished part.
"""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from models.speech.corpus import games, recorded, shards, sky
from models.speech.corpus.packages import Packages
from models.speech.corpus.shards import RATE, CorpusRow, Pcm

if TYPE_CHECKING:
    from models.speech.corpus.g2p import Pronounce
    from models.speech.corpus.texts import CorpusText, CorpusTexts
    from models.speech.corpus.voices import Voices

VERSION = 2  # of the recipe: shards of different versions are not mixed
SHARD = 300.0  # seconds
#: The source of shard i: entry i modulo the length.
TURN = ("kokoro",) * 9 + ("hibari",) + ("kokoro",) * 9 + ("debian",)
PROMPTS = "asterisk"
GAME = "queen"
SKY = "sky"
#: Kokoro's voices as learners and children, who say strings of digits: the corpus "digits".
STRINGS = "strings"
#: Shards of recorded speech, each made once.
RECORDED = (PROMPTS, GAME, SKY)
#: The environment of the processes: one thread each, and no memory is returned to the system, which would cost a third
#: of the time.
WORKERS = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "1000000000"}

Made = Iterator[tuple[CorpusRow, Pcm]]


@lru_cache(1)
def _texts(data: Path) -> CorpusTexts:
    from models.speech.corpus.texts import CorpusTexts

    return CorpusTexts(data)


@lru_cache(3)
def _voices(source: str, folder: Path) -> Voices:
    from models.speech.corpus import voices

    packages = Packages(folder)
    packages.importable()
    if source == "debian":
        return voices.DebianVoices()
    if source == "hibari":
        return voices.HibariVoices(packages)
    return voices.KokoroVoices(packages, voices.LEARNERS if source == STRINGS else voices.EVERYBODY)


@lru_cache(1)
def _american(folder: Path) -> Pronounce:
    from models.speech.corpus.g2p import Pronounce

    Packages(folder).importable()
    return Pronounce()


def name_of(index: int, corpus: str = "english") -> str:
    return f"{corpus}-{index:05d}"


def source_of(index: int) -> str:
    return TURN[index % len(TURN)]


def make_shard(folder: Path, data: Path, seed: int, index: int) -> float:
    """Make one shard of English, in a separate process; returns its duration in seconds."""
    texts = _texts(data)
    rng = random.Random(f"{seed}-{index}")
    return _write(folder, "english", index, _speak(folder, source_of(index), rng, lambda: texts.draw(rng)))


def make_strings(folder: Path, data: Path, seed: int, index: int) -> float:
    """The same of digits."""
    from models.speech.corpus.texts import draw_digits

    rng = random.Random(f"{seed}-{index}")
    return _write(folder, "digits", index, _speak(folder, STRINGS, rng, lambda: draw_digits(rng)))


def _write(folder: Path, corpus: str, index: int, made: Made) -> float:
    import torch

    torch.set_num_threads(1)
    return shards.write(folder / corpus, name_of(index, corpus), made)


def _speak(folder: Path, source: str, rng: random.Random, draw: Callable[[], CorpusText]) -> Made:
    from models.speech.corpus.g2p import label

    voices, american = _voices(source, folder), _american(folder)
    total = 0
    parent = multiprocessing.parent_process()
    while total < SHARD * RATE:
        if parent is not None and not parent.is_alive():
            os._exit(1)  # the parent was killed
        text = draw()
        try:
            words, phones = label(text.spoken, american)
            spoken = voices.speak(text.spoken, rng)
        except ValueError:  # a word without a pronunciation: draw another text
            continue
        pcm = levelled(spoken.wave)
        if not 0.3 * RATE <= len(pcm) <= 16 * RATE:
            continue
        total += len(pcm)
        licence = f"voice {voices.licence}; text {text.source.licence}"
        segments = framed(phones, spoken.times, len(pcm) // (RATE // 100))
        yield CorpusRow(source, spoken.voice, " ".join(words), phones, text.source.name, licence, segments), pcm


def framed(phones: list[list[str]], times: list[list[tuple[float, float]]], frames: int) -> list[list[int]]:
    """Segments of all phones, in ``frames`` frames of 10 ms; none without ``times`` (seconds, for each word)."""
    from models.speech.corpus.g2p import fitted

    if not times:
        return []
    spans = [span for word, spoken in zip(phones, times, strict=True) for span in fitted(len(word), spoken)]
    return [[min(frames, max(0, round(100 * edge))) for edge in span] for span in spans]


def levelled(wave: np.ndarray) -> Pcm:
    """``wave`` as int16, with a peak of half the full scale."""
    peak = max(1e-4, float(np.abs(wave).max(initial=0.0)))
    return np.rint(wave * (16384.0 / peak)).astype(np.int16)


def make_prompts(folder: Path) -> float:
    prompts = recorded.prompts(Packages(folder).prompts)
    speaker = "asterisk Allison Smith"
    return _recorded(folder, PROMPTS, ((speaker, text, pcm) for text, pcm in prompts), recorded.LICENCE)


def make_game(folder: Path) -> float:
    said = games.acted(Packages(folder).game)
    return _recorded(folder, GAME, ((f"{GAME} {who}", text, pcm) for who, text, pcm in said), games.LICENCE)


def make_sky(folder: Path) -> float:
    said = sky.acted(Packages(folder).sky)
    return _recorded(folder, SKY, ((f"{SKY} {who}", text, pcm) for who, text, pcm in said), sky.LICENCE)


def _recorded(folder: Path, name: str, said: Iterable[tuple[str, str, Pcm]], licence: str) -> float:
    """Write a shard of recorded speech, with aligned times of the phones; returns its seconds. ``said``: (speaker,
    text in spoken words, samples)."""
    from models.speech.align import Aligner
    from models.speech.corpus.g2p import label

    def rows() -> Made:
        american, aligner = _american(folder), Aligner()
        for speaker, spoken, pcm in said:
            try:
                words, phones = label(spoken, american)
            except ValueError:
                continue
            if words and 0.3 * RATE <= len(pcm) <= 20 * RATE:
                times = aligner.segments(pcm, [phone for word in phones for phone in word]).tolist()
                yield CorpusRow(name, speaker, " ".join(words), phones, name, licence, times), pcm

    return shards.write(folder / "english", name, rows())


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Lock the folder. Raises ``RuntimeError`` if another run writes to it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RuntimeError(f"{folder}: another run writes to it") from error
        yield


def agree(folder: Path, seed: int) -> None:
    """Check that the corpus has this recipe and ``seed``, or store them in a new one. Raises ``RuntimeError``."""
    settings, wanted = folder / "corpus.json", {"version": VERSION, "seed": seed, "shard_seconds": SHARD}
    if not settings.exists():
        settings.write_text(json.dumps(wanted))
    elif (found := json.loads(settings.read_text())) != wanted:
        raise RuntimeError(f"{folder} was made with {found}, not with {wanted}: delete it, or name another --folder")


def seconds_of(folder: Path, names: list[str]) -> float:
    return sum(recording.row.seconds for name in names for recording in shards.read(folder, name))


def fetch(folder: Path) -> None:
    Packages(folder).fetch()


def prepare(folder: Path) -> None:
    """Before the first shard: fetch the packages, and make the shards of recorded speech."""
    fetch(folder)
    there = shards.names(folder / "english")
    if PROMPTS not in there:
        make_prompts(folder)
    if GAME not in there and Packages(folder).game.exists():
        make_game(folder)
    if SKY not in there and Packages(folder).sky.exists():
        make_sky(folder)


#: What each corpus needs before its first shard, and how a shard is made.
CORPORA: dict[str, tuple[Callable[[Path], None], Callable[[Path, Path, int, int], float]]] = {
    "english": (prepare, make_shard),
    "digits": (fetch, make_strings),
}


def build(
    folder: Path,
    data: Path,
    hours: float,
    *,
    corpus: str = "english",
    jobs: int = 1,
    seed: int = 1,
    gigabytes: float = 20.0,
    say: Callable[[float], None] = lambda hours: None,
    prepare: Callable[[Path], None] | None = None,
    make: Callable[[Path, Path, int, int], float] | None = None,
) -> None:
    """Make shards until there are ``hours`` of synthetic speech; calls ``say(hours so far)`` after each. ``make(folder,
    data, seed, index)`` runs in ``jobs`` processes, writes a shard and returns its seconds.

    Raises ``RuntimeError`` if the packages can't be fetched, the folder is locked by another run or of another recipe,
    or the shards exceed ``gigabytes``.
    """
    place = folder / corpus
    prepare, make = prepare or CORPORA[corpus][0], make or CORPORA[corpus][1]
    with owned(place):
        agree(place, seed)
        shards.sweep(place)
        prepare(folder)
        there = {name for name in shards.names(place) if name not in RECORDED}
        made = seconds_of(place, sorted(there)) / 3600
        say(made)
        index = 0
        os.environ |= {name: os.environ.get(name, value) for name, value in WORKERS.items()}
        with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
            running: set[Future[float]] = set()
            while made < hours:
                while len(running) < jobs:
                    if name_of(index, corpus) not in there:
                        running.add(pool.submit(make, folder, data, seed, index))
                    index += 1
                done, running = wait(running, return_when=FIRST_COMPLETED)
                made += sum(future.result() for future in done) / 3600
                say(made)
                _within(place, gigabytes)


def _within(place: Path, gigabytes: float) -> None:
    used = sum(path.stat().st_size for path in place.iterdir()) / 1e9
    free = shutil.disk_usage(place).free / 1e9
    if used > gigabytes:
        raise RuntimeError(f"{place} holds {used:.1f} GB, more than --gigabytes {gigabytes:g} allows")
    if free < 2.0:
        raise RuntimeError(f"{place}: less than 2 GB are free on its disk")


def show(place: Path, console: Console | None = None) -> None:
    """Print the table of a corpus, and the licences of its texts."""
    shown = Table("source", "recordings", "speakers", "words", "hours", "licence", title=str(place))
    texts = set()
    for entry in shards.summary(place):
        voices = sorted({whole.split("; text ")[0].removeprefix("voice ") for whole in entry["licences"]})
        texts |= {whole.split("; text ")[1] for whole in entry["licences"] if "; text " in whole}
        shown.add_row(
            entry["source"], f"{entry['recordings']:,}", f"{entry['voices']:,}", f"{entry['words']:,}",
            f"{entry['hours']:.2f}", "\n".join(voices),
        )  # fmt: skip
    console = console or Console()
    console.print(shown)
    console.print("Texts: " + "; ".join(sorted(texts)))


def run(folder: Path, data: Path, corpus: str, hours: float, jobs: int, seed: int, gigabytes: float) -> None:
    """Build a corpus, with a progress bar on a terminal, else with a line for each shard; print its table."""
    console = Console()
    bar = Progress(
        TextColumn(corpus), BarColumn(), TextColumn("{task.completed:.2f} of {task.total:g} h"),
        TimeRemainingColumn(), console=console,
    )  # fmt: skip
    if console.is_terminal:
        with bar:
            task = bar.add_task("", total=hours)
            build(folder, data, hours, corpus=corpus, jobs=jobs, seed=seed, gigabytes=gigabytes,
                  say=lambda made: bar.update(task, completed=made))  # fmt: skip
    else:
        build(folder, data, hours, corpus=corpus, jobs=jobs, seed=seed, gigabytes=gigabytes,
              say=lambda made: print(f"{made:.2f} of {hours:g} h", flush=True))  # fmt: skip
    show(folder / corpus, console)
