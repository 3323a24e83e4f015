"""The one-page card beside a model: what it is, what it was trained on, what it gets wrong, how that was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


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
class Card:
    """``facts``: rows of the table on top. ``errors``: pairs (said, heard). ``commands``: how to repeat all this."""

    name: str
    summary: str
    data: str
    licence: str
    facts: Mapping[str, str]
    results: Sequence[Result]
    errors: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    commands: Sequence[str] = field(default_factory=list)

    def markdown(self, picture: str | None = None) -> str:
        lines = [f"# `{self.name}`", "", self.summary, "", "| | |", "|---|---|"]
        lines += [f"| {key} | {value} |" for key, value in self.facts.items()]
        lines += ["", f"**Data.** {self.data}", "", f"**Licence.** {self.licence}", "", "## Word error rate", ""]
        lines += ["| test | WER | 95 % interval | words | recordings | speakers |", "|---|---|---|---|---|---|"]
        for r in self.results:
            # drawing whole speakers says nothing where there is only one
            interval = f"{r.low:.1%} to {r.high:.1%}" if r.speakers > 1 else "one speaker"
            lines.append(f"| {r.test} | {r.rate:.1%} | {interval} | {r.words} | {r.recordings} | {r.speakers} |")
        lines += ["", *[line for note in self.notes for line in (note, "")]]
        if self.errors:
            lines += ["## Examples of errors", "", "| said | heard |", "|---|---|"]
            lines += [f"| {said} | {heard or '(nothing)'} |" for said, heard in self.errors] + [""]
        if picture is not None:
            lines += ["## Training", "", f"![loss and error rate while it was trained]({picture})", ""]
        if self.commands:
            lines += ["## Again", "", "```sh", *self.commands, "```", ""]
        return "\n".join(lines)


def some_errors(pairs: Sequence[tuple[str, str]], count: int = 8) -> list[tuple[str, str]]:
    """Evenly spread over the pairs that differ, so that they are neither the worst nor the mildest ones."""
    wrong = [(said, heard) for said, heard in pairs if said != heard]
    step = max(1, len(wrong) // count)
    return wrong[::step][:count]


def curves(log: Path, picture: Path) -> None:
    """Training loss and development error rate from a run's ``log.jsonl``, as a PNG."""
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
