"""The recipe ``written``: punctuation and capitals for a recogniser's words, trained on punctuated texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from models.shipped.captions import Captions, CaptionsConfig
from models.shipped.written_scores import SETS, Judged, baseline, pooled, scored, table
from models.shipped.written_texts import (
    MADE_SHARE,
    QUIET,
    SOURCES,
    UNKNOWN,
    Corpus,
    Line,
    TextNoise,
    TextRows,
    Vocabulary,
    load,
    reported,
    rows,
    streamed,
)
from models.training import checkpoint
from models.training.budget import Budget, Budgeted, fit
from models.zoo.generate.teaching import leave
from streamer.tasks.marks import CASES, LETTERS, MARKS, WIDTH

MINUTES = 20.0
STEPS = 4  # rows of a chunk
BATCH, LENGTH, EPOCH = 48, 96, 400
#: Weights of a mark's probability that are tried, for the best F1 on the development texts. Not more: a higher weight
#: of commas would gain a little F1, but a superfluous comma disturbs a reader more than a missing one.
WEIGHTS = (0.7, 0.8, 0.9, 1.0, 1.15, 1.3)
#: How the report cuts finals: at the end of each sentence or turn; anywhere; anywhere, with a word in six lost, wrong
#: or added.
CUTS = {
    "": QUIET,
    "cut anywhere": TextNoise(lost=0, more=0, wrong=0),
    "with errors": TextNoise(lost=0.03, more=0.03, wrong=0.1),
}
#: Words of each source in the development texts.
CHOOSING = 12_000
INFO: dict[str, Any] = {
    "name": "written",
    "task": "rewrite",
    "options": {"letters": LETTERS, "marks": list(MARKS), "cases": list(CASES)},
    "data": "Schema-Guided Dialogue (CC BY-SA 4.0), Rev earnings21/22 (CC BY-SA 4.0), VCTK prompts (CC BY 4.0), "
    "Taskmaster orders (CC BY 4.0), sentences made by rule; one document in ten held out for the report",
    "licence": "CC BY-SA 4.0",
    "description": "Punctuation and capitals for English words: hashed letters, a GRU, three words of look-ahead.",
}

Batch = tuple[Tensor, Tensor, Tensor]


class Streams(torch.utils.data.IterableDataset[Batch]):
    """Batches of stretches that begin with a line: codes [B, T, WIDTH], marks and cases [B, T]. When all texts are
    used, they are drawn again with new noise."""

    def __init__(self, corpus: Corpus, ahead: int, batches: int, noise: TextNoise = TextNoise(), seed: int = 1) -> None:  # noqa: B008
        vocabulary = Vocabulary()
        self.lines = {name: rows(found, vocabulary) for name, found in corpus.parts["train"].items()}
        self.codes = torch.from_numpy(vocabulary.codes()).to(torch.int8)
        self.ahead, self.batches, self.noise = ahead, batches, noise
        self.rng = np.random.default_rng(seed)
        self._rows: TextRows | None = None
        self._left: list[int] = []

    def _draw(self) -> TextRows:
        """Documents in random order, each repeated by the share of its source."""
        chosen: list[list[NDArray[np.int64]]] = []
        for name, lines in self.lines.items():
            share = SOURCES[name][1] if name in SOURCES else MADE_SHARE
            heads = [i for i, (_, head) in enumerate(lines) if head]
            documents = [[line for line, _ in lines[a:b]] for a, b in zip(heads, [*heads[1:], len(lines)], strict=True)]
            times = int(share) + (self.rng.random(len(documents)) < share % 1)
            chosen += [document for document, n in zip(documents, times, strict=True) for _ in range(n)]
        order = self.rng.permutation(len(chosen))
        return streamed([line for i in order for line in chosen[i]], self.noise, self.ahead, self.rng)

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(self.batches):
            if len(self._left) < BATCH or self._rows is None:
                self._rows = self._draw()
                starts = self._rows.starts[self._rows.starts < len(self._rows.words) - LENGTH]
                kept = self.rng.permutation(starts)[: len(self._rows.words) // LENGTH]
                self._left = kept.tolist()
            at = np.array([self._left.pop() for _ in range(BATCH)])[:, None] + np.arange(LENGTH)
            found = self._rows
            yield (
                self.codes[torch.from_numpy(found.words[at]).long()].int(),
                torch.from_numpy(found.marks[at]),
                torch.from_numpy(found.cases[at]),
            )


class MarksTeaching(Budgeted):
    """Training. Loss: mean negative log-likelihood of a word's mark and case, in nats."""

    def training_step(self, batch: Batch, index: int) -> Tensor:
        codes, marks, cases = batch
        ahead = self.model.config.ahead
        logits, _ = self.model.logits(codes, self.model.initial_state(len(codes)))
        of_marks, of_cases = logits[:, ahead:].split([len(MARKS), len(CASES)], -1)
        loss = F.cross_entropy(of_marks.flatten(0, 1), marks[:, : LENGTH - ahead].flatten(), ignore_index=UNKNOWN)
        loss = loss + F.cross_entropy(
            of_cases.flatten(0, 1), cases[:, : LENGTH - ahead].flatten(), ignore_index=UNKNOWN
        )
        self.losses.append(float(loss.detach()))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.model.parameters(), lr=self.options.rate, weight_decay=self.options.weight_decay)


@torch.no_grad()
def judged(model: Captions, lines: Sequence[Line], noise: TextNoise = QUIET, seed: int = 7) -> Judged:
    """The streaming model's output for the words of ``lines``, as one stream; finals end where ``noise`` inserts
    pauses."""
    vocabulary = Vocabulary()
    each = [line for line, _ in rows([lines], vocabulary)]
    ahead = model.config.ahead
    found = streamed(each, noise, ahead, np.random.default_rng(seed))
    codes = torch.from_numpy(vocabulary.codes())[torch.from_numpy(found.words).long()]
    state, parts = model.initial_state(1), []
    for piece in torch.cat([codes, codes.new_zeros(ahead, WIDTH)])[None].split(4096, 1):
        said, state = model(piece, state)
        parts.append(torch.cat([said["marks"], said["cases"]], -1)[0])
    said_of = torch.cat(parts)[ahead:].numpy()
    words = np.flatnonzero(found.words)
    pauses = np.append(np.diff(words) > 1, True)
    names = list(vocabulary.places)
    return Judged(
        [names[i] for i in found.words[words]], found.marks[words], found.cases[words], pauses,
        said_of[words, : len(MARKS)], said_of[words, len(MARKS) :],
    )  # fmt: skip


def some(documents: Sequence[Sequence[Line]], words: int) -> list[Line]:
    """Lines of evenly spaced documents, about ``words`` words in all."""
    lines: list[Line] = []
    total, each = 0, max(1, len(documents) // 40)
    for document in (*documents[::each], *documents[1::each]):
        lines += document[:60]
        total += sum(map(len, document[:60]))
        if total > words:
            break
    return lines


def weights(found: Judged) -> tuple[float, ...]:
    """The weights of the marks with the best mean of the four F1, by coordinate search."""
    best = [1.0] * len(MARKS)
    for mark in (1, 2, 3, 1, 2, 3):
        tried = [[*best[:mark], w, *best[mark + 1 :]] for w in WEIGHTS]
        best = max(tried, key=lambda w: sum(scored(found, w)))
    return tuple(best)


def train(
    folder: Path, minutes: float | None = None, steps: int = 0, *, data: Path | None = None, resume: bool = False,
    rate: float | None = None, warm: Path | None = None,
    corpus: Corpus | None = None, config: CaptionsConfig = CaptionsConfig(),  # noqa: B008
) -> Path:  # fmt: skip
    """Train, score, and return the path of the packed checkpoint. ``steps``: a budget in batches instead of
    ``minutes``. ``warm``: a checkpoint to start from; ``rate``: the highest learning rate. ``corpus``: texts instead of
    those of the folder ``data``."""
    if corpus is None:
        assert data is not None
        corpus = load(data)
    torch.manual_seed(1)
    model = Captions(config)
    if warm is not None:
        model.load_state_dict(checkpoint.load(warm)[0].state_dict())
    source = {"name": "words", "dtype": "int32", "chunk_shape": [STEPS, WIDTH], "step_seconds": 0.0}
    info = INFO | {"input": source | {"limits": [list(pair) for pair in model.limits()]}}
    info |= {"latency": config.ahead, "flush": config.ahead}
    dev = [some(documents, CHOOSING) for documents in corpus.parts["dev"].values()]

    def evaluate(average: Any) -> dict[str, float]:
        means = scored(pooled([judged(average, lines, noise) for lines in dev for noise in (QUIET, TextNoise())]))
        return {"error": 1 - sum(means) / len(means), **dict(zip(SETS, means, strict=True))}

    def save(path: Path, average: Any, about: dict[str, Any]) -> None:
        checkpoint.save(path, average, info | about)

    budget = Budget(minutes=minutes or MINUTES, steps=steps, rate=rate or 4e-3, weight_decay=0.01, average=0.998)
    streams = Streams(corpus, config.ahead, min(EPOCH, steps or EPOCH))
    fit(MarksTeaching(model, budget, evaluate, save, folder), streams, resume=resume)
    return finish(folder, corpus, reported(data) if data is not None else {})


def finish(folder: Path, corpus: Corpus, recorded: dict[str, list[Line]]) -> Path:
    """Pack the best epoch's tables to int8, choose the marks' weights, write the report beside a baseline; returns the
    path of the packed checkpoint."""
    best = folder / "best.pt"
    trained, info = checkpoint.load(best)
    model = trained if trained.config.packed else trained.pack()
    dev = [some(documents, CHOOSING) for documents in corpus.parts["dev"].values()]
    chosen = weights(pooled([judged(model, lines, noise) for lines in dev for noise in (QUIET, TextNoise())]))
    info["options"] = info["options"] | {"weights": list(chosen)}
    path = folder / "written.pt"
    checkpoint.save(path, model, info)
    texts = {name: [line for document in found for line in document] for name, found in corpus.parts["report"].items()}
    found: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for name, lines in {**texts, **recorded}.items():
        each = {how: judged(model, lines, noise) for how, noise in CUTS.items()}
        found[name] = {how: (scored(one, chosen), baseline(one)) for how, one in each.items()}
    (folder / "report.md").write_text(table(found))
    mine, plain = (np.mean([both[i] for cuts in found.values() for both in cuts.values()], axis=0) for i in (0, 1))
    scores = {f"F1, {what}": float(value) for what, value in zip(SETS, mine, strict=True)}
    leave(folder, scores | {f"F1, {what}, baseline": float(value) for what, value in zip(SETS, plain, strict=True)})
    return path
