"""The recipe ``written-line``: reads a line of handwriting column by column; trained on pictures of Debian's fonts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from models.speech.data import data_folder
from models.training import checkpoint
from models.training.budget import Budget, Budgeted, fit
from models.training.score import edits
from models.zoo.classify.handwriting import HANDS, HELD, PRINTS, Scribe, families
from models.zoo.classify.line_reader import LineReaderConfig, LineReaderNetwork
from models.zoo.classify.line_templates import Templates
from models.zoo.generate.teaching import leave
from streamer.contract.manifest import Golden, Input, Manifest, Output, Provenance
from streamer.tasks.transcribe.task import Transcribe, decode_all

TOKENS = ["<blank>", " ", *"abcdefghijklmnopqrstuvwxyz0123456789.,-'"]
HEIGHT, CHUNK = 32, 16  # columns
#: Steps of blank paper after a line, since letters are output late.
FLUSH = 12
#: Nominal duration of a column, as of a pen that writes a letter in a tenth of a second.
COLUMN_SECONDS = 0.01
MINUTES, BATCH, EPOCH = 8.0, 24, 60
#: Lines in the pool, and new ones for each batch: drawing a line takes as long as training on three.
POOL, NEW = 4000, 6
SCORED = 300
INFO: dict[str, Any] = {
    "name": "written-line",
    "task": "transcribe",
    "tokens": TOKENS,
    "units": "characters",
    "hop": 2,
    "flush": FLUSH,
    "input": {
        "name": "columns",
        "dtype": "float32",
        "chunk_shape": [CHUNK, HEIGHT],
        "step_seconds": COLUMN_SECONDS,
    },
    "options": {"endpoint": {"silence": None, "trailing": None, "length": 300.0}},
    "description": "Reads a written line, column by column: small letters, digits and .,-'; capitals are read as small "
    "letters. Two convolutions, two LSTMs of 64 units, CTC.",
    "data": "lines of the LJ Speech texts and LibriSpeech dev-clean transcripts with numbers among them, in fonts of "
    f"Debian's packages, distorted; no line in {', '.join(HELD)}",
    "licence": "Apache-2.0; trained on: LJ Speech texts, public domain; LibriSpeech transcripts, CC BY 4.0; pictures "
    "of free fonts",
}

Line = tuple[NDArray[np.float16], list[int]]  # ink [columns, height], tokens
Batch = tuple[Tensor, Tensor, Tensor, Tensor]  # ink [B, N, H], steps [B], tokens [B, L], their counts [B]


class Written(NamedTuple):
    """A text: the label, and the form that is drawn."""

    read: str
    drawn: str


class LineTexts:
    """Random runs of words of ``sentences``, with numbers, and some words with capitals."""

    def __init__(self, sentences: Sequence[str], seed: int) -> None:
        self.words = [line.lower().split() for line in sentences]
        self.rng = np.random.default_rng(seed)

    def draw(self) -> Written:
        rng = self.rng
        words = self.words[int(rng.integers(len(self.words)))]
        first = int(rng.integers(max(1, len(words) - 1)))
        some = words[first : first + int(rng.integers(1, 6))]
        read = [self._number() if rng.random() < 0.2 else self._pointed(word) for word in some]
        chance = rng.random()
        drawn = [word.upper() if chance < 0.1 else word.capitalize() if rng.random() < 0.15 else word for word in read]
        return Written(" ".join(read), " ".join(drawn))

    def _pointed(self, word: str) -> str:
        chance = self.rng.random()
        return word + (",."[chance < 0.04] if chance < 0.12 else "-" * (chance > 0.98))

    def _number(self) -> str:
        rng = self.rng
        digits = "".join(str(d) for d in rng.integers(0, 10, int(rng.integers(1, 6))))
        at = int(rng.integers(1, len(digits) + 1))
        return (
            digits
            if rng.random() < 0.6 or at == len(digits)
            else f"{digits[:at]}{'.,-'[int(rng.integers(3))]}{digits[at:]}"
        )


def sentences(path: Path | None = None) -> tuple[list[str], list[str]]:
    """Training sentences, and held-out ones: every twentieth block of fifty, as in the recipe ``characters``."""
    lines = (path or data_folder() / "text" / "sentences.txt").read_text().splitlines()
    known = set("".join(TOKENS[1:]).upper())
    lines = ["".join(c for c in line if c in known) for line in lines]
    lines = [line for line in lines if line.strip()]
    return (
        [line for i, line in enumerate(lines) if i // 50 % 20 != 19],
        [line for i, line in enumerate(lines) if i // 50 % 20 == 19],
    )


class Pages(torch.utils.data.IterableDataset[Batch]):
    """Batches of lines of similar width, from a pool of ``pool`` lines, of which each batch replaces ``new``."""

    def __init__(self, write: Callable[[], Line], batches: int, pool: int = POOL, new: int = NEW) -> None:
        self.write, self.batches, self.size, self.new = write, batches, pool, new
        self.pool: list[Line] = []
        self.rng, self.at = np.random.default_rng(5), 0

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(self.batches):
            for _ in range(self.new if len(self.pool) >= BATCH else 4 * BATCH):
                if len(self.pool) < self.size:
                    self.pool.append(self.write())
                else:
                    self.pool[self.at % self.size] = self.write()
                    self.at += 1
            some = self.rng.integers(len(self.pool), size=4 * BATCH)
            lines = sorted((self.pool[i] for i in some), key=lambda line: len(line[0]))
            first = int(self.rng.integers(3 * BATCH))
            yield collate(lines[first : first + BATCH])


def collate(lines: Sequence[Line]) -> Batch:
    """A batch, with at least ``FLUSH`` steps of blank paper after each line."""
    widths = [2 * (-(-len(ink) // 2) + FLUSH) for ink, _ in lines]
    page = np.zeros((len(lines), max(widths), lines[0][0].shape[1]), np.float32)
    marks = np.zeros((len(lines), max(len(tokens) for _, tokens in lines)), np.int64)
    for row, (ink, tokens) in enumerate(lines):
        page[row, : len(ink)] = ink
        marks[row, : len(tokens)] = tokens
    steps, counts = torch.tensor(widths) // 2, torch.tensor([len(tokens) for _, tokens in lines])
    return torch.from_numpy(page), steps, torch.from_numpy(marks), counts


class LineTraining(Budgeted):
    """Training. Loss: CTC, in nats per token."""

    def training_step(self, batch: Batch, index: int) -> Tensor:
        ink, steps, tokens, counts = batch
        log_probs, _ = self.model(ink, self.model.initial_state(len(ink)))
        loss = F.ctc_loss(log_probs.transpose(0, 1), tokens, steps, counts, zero_infinity=True)
        self.losses.append(float(loss.detach()))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.model.parameters(), lr=self.options.rate, weight_decay=self.options.weight_decay)


def train(folder: Path, minutes: float | None = None, steps: int = 0) -> Path:
    """Train, score, and return the path of the best checkpoint. ``steps``: a budget in batches instead of ``minutes``.
    Raises ``FileNotFoundError`` if the sentences or fonts are missing."""
    rest, held = sentences()
    known = families([name for name in [*HANDS, *PRINTS] if name not in HELD])
    unseen = {
        kind: families([name for name in names if name in HELD])
        for kind, names in (("handwriting", HANDS), ("print", PRINTS))
    }
    best = learn(rest, held, known, folder, Budget(minutes=minutes or MINUTES, steps=steps, rate=5e-3, average=0.99))
    model = checkpoint.load(best)[0]
    templates = Templates(known, TOKENS[2:], HEIGHT)
    found = {}
    for which, fonts in {"unseen handwriting": unseen["handwriting"], "unseen print": unseen["print"],
                         "known fonts": known}.items():  # fmt: skip
        lines = written(LineTexts(held, 99), Scribe(fonts, 99), SCORED)
        found[f"character error rate, {which}"] = error_rate(model, lines)
        said = [templates.read(np.asarray(ink, np.float32)) for ink, _ in lines]
        found[f"character error rate, nearest letter, {which}"] = rate(lines, said)
    leave(folder, found)
    return best


def learn(
    rest: Sequence[str], held: Sequence[str], fonts: dict[str, list[Path]], folder: Path, budget: Budget,
    config: LineReaderConfig | None = None,
) -> Path:  # fmt: skip
    """Train; returns the checkpoint with the lowest error on lines of held-out text in the same fonts."""
    torch.manual_seed(1)
    texts, scribe = LineTexts(rest, 1), Scribe(fonts, 1)
    dev = written(LineTexts(held, 2), Scribe(fonts, 2), min(120, 12 * (budget.steps or 10)))

    def evaluate(average: Any) -> dict[str, float]:
        return {"error": error_rate(average, dev)}

    def save(path: Path, average: Any, about: dict[str, Any]) -> None:
        checkpoint.save(path, average, INFO | about)

    model = LineReaderNetwork(config or LineReaderConfig(len(TOKENS)))
    pages = Pages(lambda: written(texts, scribe, 1)[0], min(EPOCH, budget.steps or EPOCH))
    fit(LineTraining(model, budget, evaluate, save, folder), pages)
    return folder / "best.pt"


def written(texts: LineTexts, scribe: Scribe, count: int) -> list[Line]:
    lines: list[Line] = []
    for _ in range(count):
        text = texts.draw()
        ink = scribe.line(text.drawn, HEIGHT)
        lines.append((ink.astype(np.float16), [TOKENS.index(c) for c in text.read]))
    return lines


# -- the score ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def error_rate(model: LineReaderNetwork, lines: Sequence[Line]) -> float:
    """Edits over characters, of the texts that the daemon's task decodes from the lines."""
    found = []
    for first in range(0, len(lines), 60):
        ink, steps, _, _ = collate(lines[first : first + 60])
        log_probs, _ = model(ink, model.initial_state(len(ink)))
        found += [row[:count].numpy() for row, count in zip(log_probs, steps.tolist(), strict=True)]
    return rate(lines, decode_all(reader(), found))


def rate(lines: Sequence[Line], said: Sequence[str]) -> float:
    wanted = ["".join(TOKENS[token] for token in tokens) for _, tokens in lines]
    return sum(edits(a, b) for a, b in zip(wanted, said, strict=True)) / sum(len(a) for a in wanted)


def reader() -> Transcribe:
    """The daemon's task, with a manifest of one step a chunk."""
    options = {"tokens": TOKENS, "blank": 0, "units": "characters", **INFO["options"]}
    source = Input(name="columns", dtype="float32", chunk_shape=(2, HEIGHT), step_seconds=COLUMN_SECONDS)
    return Transcribe(
        Manifest(
            schema=1, name="written-line", version="1", task="transcribe", licence="", states=(), latency=0, flush=0,
            max_batch=1, input=source, options=options,
            outputs=(Output(name="log_probs", dtype="float32", shape=(1, len(TOKENS))),),
            provenance=Provenance(data="", revision="", tolerance=0.0),
            golden=Golden(chunks=(), outputs={"log_probs": ()}),
        )
    )  # fmt: skip
