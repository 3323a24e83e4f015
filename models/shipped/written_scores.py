"""F1 of punctuation and capitals, for a model and for a rule-based baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.tasks.marks import ENDS, MARKS, I

#: What has an F1 of its own: marks by their place, and words that are not all small.
SETS = ("comma", "period", "question mark", "capital")
PLACES = (MARKS.index(","), MARKS.index("."), MARKS.index("?"))
ENDING = [MARKS.index(mark) for mark in ENDS]


@dataclass(frozen=True)
class Judged:
    """Of each word: its true mark and case, whether a final ends there, and probabilities [n, marks], [n, cases].
    Negative: unknown."""

    words: list[str]
    marks: NDArray[np.int64]
    cases: NDArray[np.int64]
    pauses: NDArray[np.bool_]
    of_marks: NDArray[np.float32]
    of_cases: NDArray[np.float32]


def pooled(found: Sequence[Judged]) -> Judged:
    """As one text: a mark that is rare in one of them weighs as much as it occurs."""
    return Judged(
        [word for one in found for word in one.words],
        *(
            np.concatenate([getattr(one, name) for one in found])
            for name in Judged.__dataclass_fields__
            if name != "words"
        ),
    )


def scored(found: Judged, weights: Sequence[float] = (1.0,) * len(MARKS)) -> list[float]:
    """F1 of :data:`SETS`, with the rules by which captions are written: a sentence begins with a capital, and so does
    I."""
    marks = (found.of_marks * np.array(weights, np.float32)).argmax(1)
    begins = np.append(True, np.isin(marks[:-1], ENDING))
    return _f1(found, marks, found.of_cases.argmax(1), begins)


def baseline(found: Judged) -> list[float]:
    """A final begins with a capital and ends with a period; I is a capital."""
    begins = np.append(True, found.pauses[:-1])
    marks = np.where(found.pauses, MARKS.index("."), 0)
    return _f1(found, marks, np.zeros(len(marks), np.int64), begins)


def _f1(found: Judged, marks: NDArray[Any], cases: NDArray[Any], begins: NDArray[np.bool_]) -> list[float]:
    own = np.array([word in I for word in found.words])
    cases = np.where((cases == 0) & (begins | own), 1, cases)
    known, sure = found.marks >= 0, found.cases >= 0
    each = [f1((marks == place)[known], (found.marks == place)[known]) for place in PLACES]
    # a capital in the wrong way (Ceo) is a miss and one too many
    right = (cases == found.cases) & (cases > 0) & sure
    said, true = int((cases[sure] > 0).sum()), int((found.cases[sure] > 0).sum())
    return [*each, 2 * int(right.sum()) / max(1, said + true)]


def f1(said: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    """2 TP / (2 TP + FP + FN); 1 where there is nothing to find, and nothing was found."""
    total = int(said.sum()) + int(true.sum())
    return 2 * int((said & true).sum()) / total if total else 1.0


def table(found: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]) -> str:
    """Text -> how its finals are cut -> F1 of the model and of the baseline, as Markdown; in per cent."""
    lines = [f"| text | finals | {' | '.join(SETS)} |", "|---" * (2 + len(SETS)) + "|"]
    for name, ways in found.items():
        for how, (mine, plain) in ways.items():
            cells = [f"**{100 * a:.0f}** ({100 * b:.0f})" for a, b in zip(mine, plain, strict=True)]
            lines.append(f"| {name} | {how or 'sentences and turns'} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
