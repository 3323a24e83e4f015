"""A model's one-page card: architecture, training data, typical errors, scores and how they were measured."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from models.speech import decoding
from models.speech.acoustic import Acoustic, parameters
from models.speech.data import Utterance
from models.training.score import bootstrap, edits, greedy, log_probs

FAMILIES = {
    "wavenet": "causal WaveNet + CTC",
    "lstm": "gated convolutions and LSTM + CTC",
    "attention": "Transformer with attention in blocks + CTC",
}


@dataclass(frozen=True)
class Result:
    """A word error rate (0.1 is 10 %) with its 95 % bootstrap interval over speakers."""

    test: str
    rate: float
    low: float
    high: float
    words: int
    recordings: int
    speakers: int


@dataclass(frozen=True)
class Variant:
    """The same weights with other arithmetic. ``rates``: error rate by test; ``speeds``: speed relative to the shipped
    file, by batch size, with one thread."""

    name: str
    megabytes: float
    speeds: Mapping[int, float]
    rates: Mapping[str, float]


@dataclass(frozen=True)
class Card:
    """``facts``: rows of the first table. ``errors``: pairs (said, recognised). ``commands``: repeat the training and
    the measurement."""

    name: str
    summary: str
    data: str
    licence: str
    facts: Mapping[str, str]
    results: Sequence[Result]
    errors: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    commands: Sequence[str] = field(default_factory=list)
    measure: str = "Word error rate"
    variants: Sequence[Variant] = ()

    def markdown(self, picture: str | None = None) -> str:
        lines = [f"# `{self.name}`", "", self.summary, "", "| | |", "|---|---|"]
        lines += [f"| {key} | {value} |" for key, value in self.facts.items()]
        lines += ["", f"**Data.** {self.data}", "", f"**Licence.** {self.licence}", "", f"## {self.measure}", ""]
        lines += ["| test | rate | 95 % interval | words | recordings | speakers |", "|---|---|---|---|---|---|"]
        for r in self.results:
            # a bootstrap over speakers needs more than one
            interval = f"{r.low:.1%} to {r.high:.1%}" if r.speakers > 1 else "one speaker"
            lines.append(f"| {r.test} | {r.rate:.1%} | {interval} | {r.words} | {r.recordings} | {r.speakers} |")
        lines += ["", *[line for note in self.notes for line in (note, "")]]
        for variant in self.variants:
            speeds = ", ".join(f"{speed:.2f} times at batch {batch}" for batch, speed in variant.speeds.items())
            rates = ", ".join(f"{rate:.1%} ({test})" for test, rate in variant.rates.items())
            lines += [f"**{variant.name}** (not shipped): {variant.megabytes:.1f} MB; as fast as this file {speeds}; "
                      f"{rates}.", ""]  # fmt: skip
        if self.errors:
            lines += ["## Examples of errors", "", "| said | heard |", "|---|---|"]
            lines += [f"| {said} | {heard or '(nothing)'} |" for said, heard in self.errors] + [""]
        if picture is not None:
            lines += ["## Training", "", f"![loss and error rate while it was trained]({picture})", ""]
        if self.commands:
            lines += ["## Again", "", "```sh", *self.commands, "```", ""]
        return "\n".join(lines)


def some_errors(pairs: Sequence[tuple[str, str]], count: int = 8) -> list[tuple[str, str]]:
    """At most ``count`` of the pairs that differ, evenly spaced, so that they are neither the worst nor the mildest."""
    wrong = [(said, heard) for said, heard in pairs if said != heard]
    step = max(1, len(wrong) // count)
    return wrong[::step][:count]


def curves(log: Path, picture: Path) -> None:
    """Plot training loss and development error rate from a run's ``log.jsonl`` to a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows: list[dict[str, Any]] = [json.loads(line) for line in log.read_text().splitlines()]
    hours = [row["minutes"] for row in rows]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.2))
    left.plot(hours, [row["loss"] for row in rows], color="#4477aa")
    left.set(title="training loss (CTC)", xlabel="minutes on one core", ylim=(0, None))
    for key in (key for key in rows[-1] if key.startswith(("per_", "wer_"))):
        right.plot(hours, [100 * row.get(key, float("nan")) for row in rows], label=key.replace("_", " "))
    right.set(title="development error rate, %", xlabel="minutes on one core", ylim=(0, None))
    right.legend()
    figure.tight_layout()
    figure.savefig(picture, dpi=100)
    pyplot.close(figure)


def streams_per_core(model: Acoustic, seconds: float = 1.0, chunk: int = 8) -> int:
    """Real-time streams for one core in PyTorch, with batch size 1 and chunks of ``chunk`` steps. ``seconds``: duration
    of the measurement."""
    pcm, state = torch.zeros(1, chunk * model.hop, dtype=torch.int16), model.initial_state(1)
    runs, start = 0, time.process_time()
    with torch.no_grad():
        while time.process_time() - start < seconds:
            _, state = model(pcm, state)
            runs += 1
    return int(runs * chunk * model.hop / model.sample_rate / (time.process_time() - start))


def in_vocabulary(utterances: Sequence[Utterance], tokens: Sequence[str]) -> list[Utterance]:
    """The recordings whose words are all ``tokens``."""
    return [u for u in utterances if set(u.text.lower().split()) <= set(tokens)]


def leave(folder: Path, model: Acoustic, info: Mapping[str, Any], dev: Mapping[str, Sequence[Utterance]]) -> Path:
    """Write ``card.md`` and ``losses.png`` beside a run's checkpoint, measured on its development speakers.

    Counts words, by the daemon's decoder, if the checkpoint's tokens are words or it has a lexicon (or the folder has
    ``lexicon.txt`` and ``lm.bin``); else phones.
    """
    lexicon = lm = None
    if info["lexicon"]:
        entries = ((word, phones) for word, spoken in info["lexicon"].items() for phones in spoken)
        lexicon = "".join(f"{word}\t{' '.join(phones)}\n" for word, phones in entries).encode()
    elif (folder / "lexicon.txt").exists() and (folder / "lm.bin").exists():
        lexicon, lm = (folder / "lexicon.txt").read_bytes(), (folder / "lm.bin").read_bytes()
    task = None
    if info.get("units") == "words":
        task = decoding.transcriber(dict(info), None)
        spoken = {test: in_vocabulary(utterances, info["tokens"]) for test, utterances in dev.items()}
        dev = {test: utterances for test, utterances in spoken.items() if utterances}
    elif lexicon is not None:
        task = decoding.transcriber(dict(info), lexicon, lm, {"kind": "beam"})
    results: list[Result] = []
    errors: list[tuple[str, str]] = []
    for test, utterances in dev.items():
        rows = log_probs(model, [u.pcm for u in utterances])
        if task is not None:
            said, heard = [u.text.lower() for u in utterances], decoding.decode_all(task, rows)
        else:
            said, heard = [" ".join(u.flat) for u in utterances], [" ".join(greedy(row)) for row in rows]
        wrong = [edits(a.split(), b.split()) for a, b in zip(said, heard, strict=True)]
        words = [len(text.split()) for text in said]
        speakers = [u.speaker for u in utterances]
        low, high = bootstrap(wrong, words, speakers)
        rate = sum(wrong) / max(1, sum(words))
        results.append(Result(test, rate, low, high, sum(words), len(words), len(set(speakers))))
        errors = errors or some_errors(list(zip(said, heard, strict=True)))
    curves(folder / "log.jsonl", folder / "losses.png")
    card = Card(
        name=info["name"],
        summary="On development speakers, whose error rate picked this checkpoint: a report needs others.",
        data=info["data"],
        licence=info["licence"],
        facts={
            "family": FAMILIES[info["family"]],
            "parameters": f"{parameters(model) / 1e6:.2f} M",
            "input": f"PCM, {info['sample_rate']} Hz, a step every {1000 * model.hop // model.sample_rate} ms",
            "streams per core": f"{streams_per_core(model)} in real time, one at a time, in PyTorch",
        },
        results=results,
        errors=errors,
        measure="Word error rate" if task is not None else "Phone error rate",
    )
    path = folder / "card.md"
    path.write_text(card.markdown("losses.png"))
    return path
