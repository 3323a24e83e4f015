"""F1 of punctuation and capitals, for a model and for a rule-based baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.tasks.marks import ENDS, MARKS, I

#: The classes that are scored: marks, and words that are not all lower case.
SETS = ("comma", "period", "question mark", "capital")
PLACES = (MARKS.index(","), MARKS.index("."), MARKS.index("?"))
ENDING = [MARKS.index(mark) for mark in ENDS]


@dataclass(frozen=True)
class Judged:
    """For each of n words: the true mark and case [n] (negative: unknown), whether a final ends after it [n], and the
    model's probabilities [n, marks] and [n, cases]."""

    words: list[str]
    marks: NDArray[np.int64]
    cases: NDArray[np.int64]
    pauses: NDArray[np.bool_]
    of_marks: NDArray[np.float32]
    of_cases: NDArray[np.float32]


def pooled(found: Sequence[Judged]) -> Judged:
    """Concatenated, as one text."""
    return Judged(
        [word for one in found for word in one.words],
        *(
            np.concatenate([getattr(one, name) for one in found])
            for name in Judged.__dataclass_fields__
            if name != "words"
        ),
    )


def scored(found: Judged, weights: Sequence[float] = (1.0,) * len(MARKS)) -> list[float]:
    """F1 of :data:`SETS`, with the daemon's rules: a sentence starts with a capital, and "I" is a capital. ``weights``:
    of the marks' probabilities."""
    marks = (found.of_marks * np.array(weights, np.float32)).argmax(1)
    begins = np.append(True, np.isin(marks[:-1], ENDING))
    return _f1(found, marks, found.of_cases.argmax(1), begins)


def baseline(found: Judged) -> list[float]:
    """F1 of :data:`SETS` by rule: a final starts with a capital and ends with a period; "I" is a capital."""
    begins = np.append(True, found.pauses[:-1])
    marks = np.where(found.pauses, MARKS.index("."), 0)
    return _f1(found, marks, np.zeros(len(marks), np.int64), begins)


def _f1(found: Judged, marks: NDArray[Any], cases: NDArray[Any], begins: NDArray[np.bool_]) -> list[float]:
    own = np.array([word in I for word in found.words])
    cases = np.where((cases == 0) & (begins | own), 1, cases)
    known, sure = found.marks >= 0, found.cases >= 0
    each = [f1((marks == place)[known], (found.marks == place)[known]) for place in PLACES]
    # wrong capitals (Ceo) count as a false negative and a false positive
    right = (cases == found.cases) & (cases > 0) & sure
    said, true = int((cases[sure] > 0).sum()), int((found.cases[sure] > 0).sum())
    return [*each, 2 * int(right.sum()) / max(1, said + true)]


def f1(said: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    """2 TP / (2 TP + FP + FN); 1 if there is nothing to find and nothing was found."""
    total = int(said.sum()) + int(true.sum())
    return 2 * int((said & true).sum()) / total if total else 1.0


def table(found: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]) -> str:
    """A Markdown table in per cent. ``found``: by text, then by how its finals are cut: F1 of model and baseline."""
    lines = [f"| text | finals | {' | '.join(SETS)} |", "|---" * (2 + len(SETS)) + "|"]
    for name, cuts in found.items():
        for how, (mine, plain) in cuts.items():
            cells = [f"**{100 * a:.0f}** ({100 * b:.0f})" for a, b in zip(mine, plain, strict=True)]
            lines.append(f"| {name} | {how or 'sentences and turns'} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
