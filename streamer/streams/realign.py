"""Puts the second pass's result on the stream's time line: words with times, or the reason to keep the first result.

If both models have the same word at about the same time, it gets the first model's times. Other words have the second
recogniser's times, within the final's part of the sound. No word begins before the previous one ends.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from streamer.streams.revision import Heard, HeardWord
from streamer.tasks.spoken import readings

__all__ = ["Second", "revise", "spoken"]

#: A probability of silence above the first value and a mean log probability below the second together mean no speech.
#: Noises had .57 to .83 and -.9 to -2.5 (whisper-base), the worst recognised of 80 development utterances .46. A mean
#: log probability below the third value is unsure (Whisper's own bound).
SILENCE, SILENT_LOGP, UNSURE_LOGP = 0.5, -0.7, -1.0
#: Text that compresses better than this repeats itself (Whisper's own rule), and so does one with more words a second.
REPETITION, WORDS_PER_SECOND = 2.4, 7.0
#: Marks that are replaced by equivalent ones.
PLAIN = str.maketrans({"\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "-", "\u2026": "."})
#: A time is spoken as it is written: 9:30 does not become "half past nine" here.
CLOCK = frozenset({"o'clock", "past", "to"})
#: 3-1-4 does not mean 3, minus 1, minus 4.
DASH = re.compile(r"(?<=\w)-(?=\w)")
#: Seconds of a word at most: the last one's end may be found far in the pause behind it.
LONGEST = 1.2
#: Seconds behind the start of a final's first word, where the last word of the final before can't end.
WITHIN = 0.05
#: The same word, if its middles are at most so many seconds apart.
NEAR = 0.5


class Second(NamedTuple):
    """``words`` as in an event, ``written`` beside each (empty after the first of several that are written as one), and
    the ``text`` as it was written. ``reason``: why the first result stands; empty: it does not."""

    words: tuple[dict[str, Any], ...]
    text: str
    reason: str = ""

    def apply(self, final: dict[str, Any]) -> None:
        """Put the result into the event; without words if the stream did not ask for them."""
        final["revised"] = not self.reason
        if self.reason:
            return
        listed = bool(final["words"])
        if self.words:
            final["start"], final["end"] = self.words[0]["start"], self.words[-1]["end"]
        final["text"], final["words"] = self.text, list(self.words) if listed else []


def revise(
    heard: Heard, first: Sequence[dict[str, Any]], offset: float, span: tuple[float, float], numbers: str = "spoken"
) -> Second:
    """``first``: the words of the final. ``offset``: where the sound begins in the stream; ``span``: the final's own
    part of it, seconds of the stream. ``numbers``: ``spoken`` or ``written``."""
    begins = first[0]["start"] if first else span[0]
    own = [word for word in heard.words if word.text and _inside(word, offset, span, begins)]
    if not own or (heard.silence > SILENCE and heard.logp < SILENT_LOGP):
        return Second((), "")  # there is no speech: the first model invented the words
    text = " ".join(word.text for word in own)
    packed = len(text.encode()) / len(zlib.compress(text.encode()))
    if heard.logp < UNSURE_LOGP or packed > REPETITION or len(own) > 3 + WORDS_PER_SECOND * (span[1] - span[0]):
        return Second((), "", "unsure")
    words: list[dict[str, Any]] = []
    for word in own:
        start = min(max(word.start + offset, span[0]), span[1])
        end = min(max(word.end + offset, start), start + LONGEST, span[1])
        parts = spoken(word.text, numbers)
        width = (end - start) / max(1, len(parts))
        for i, part in enumerate(parts):
            times = {"start": start + i * width, "end": start + (i + 1) * width}
            words.append({"word": part, **times, "confidence": word.confidence, "written": "" if i else word.text})
        if not parts and words:  # a mark by itself
            words[-1]["written"] = f"{words[-1]['written']} {word.text}".strip()
    _take_times(words, first)
    _order(words, span)
    return Second(tuple(words), text if words else "")


def spoken(text: str, numbers: str = "spoken") -> list[str]:
    """One written word as it is spoken: lower case, no marks, a number in words (if the rules can read it)."""
    word = text.translate(PLAIN).strip(' "()[]{},;:!?').lower()
    word = word if re.fullmatch(r"(?:[a-z]\.){2,}", word) else word.rstrip(".")
    if not re.search(r"\w", word):
        return []
    if re.search(r"\d", word):
        return [word] if numbers == "written" else [said for part in DASH.split(word) for said in _read(part)]
    return [part for part in re.split("[-/.]+" if word[-1] != "." else "[-/]+", word.strip("'*")) if part]


def _read(number: str) -> list[str]:
    """One spoken form of the word; the word itself if the rules have none."""
    found = [said for said in readings(number) if not CLOCK.intersection(said)]
    if not found:
        return [number] if "," not in number else _read(number.replace(",", ""))
    year = re.fullmatch(r"(?:1[1-9]|20)\d\d", number) is not None  # rather than so many hundred
    return list(min(found, key=lambda said: len(list(said))) if year else found[0])


def _inside(word: HeardWord, offset: float, span: tuple[float, float], begins: float) -> bool:
    """Whether the word belongs to the final: its middle is in the span. A pause may count as a part of the word behind
    it or of the word before it; so a word that begins before the span must end :data:`WITHIN` the final's first word or
    later, which starts at ``begins``."""
    start, end = offset + word.start, offset + word.end
    if start < span[0]:
        return max(begins + WITHIN, span[0]) <= end <= span[1]
    return (start + min(end, start + LONGEST)) / 2 <= span[1]


def _take_times(words: list[dict[str, Any]], first: Sequence[dict[str, Any]]) -> None:
    """Copy the times of equal words in ``first``, along the alignment with the fewest edits."""
    for i, j in matches([word["word"] for word in words], [word["word"].lower() for word in first]):
        mine, other = words[i], first[j]
        if abs(mine["start"] + mine["end"] - other["start"] - other["end"]) <= 2 * NEAR:
            mine["start"], mine["end"] = other["start"], other["end"]


def matches(left: Sequence[str], right: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of equal words along the alignment with the fewest edits."""
    cost = [[i + j for j in range(len(right) + 1)] for i in range(len(left) + 1)]
    for i, a in enumerate(left, 1):
        for j, b in enumerate(right, 1):
            cost[i][j] = min(cost[i - 1][j] + 1, cost[i][j - 1] + 1, cost[i - 1][j - 1] + (a != b))
    found = []
    i, j = len(left), len(right)
    while i and j:
        if left[i - 1] == right[j - 1] and cost[i][j] == cost[i - 1][j - 1]:
            found.append((i - 1, j - 1))
            i, j = i - 1, j - 1
        elif cost[i][j] == cost[i - 1][j - 1] + 1:
            i, j = i - 1, j - 1
        elif cost[i][j] == cost[i - 1][j] + 1:
            i -= 1
        else:
            j -= 1
    return found[::-1]


def _order(words: list[dict[str, Any]], span: tuple[float, float]) -> None:
    """Round times to the millisecond, and keep the words within the span and in order."""
    least = span[0]
    for word in words:
        start = min(max(word["start"], least), span[1])
        end = min(max(word["end"], start), span[1])
        word["start"], word["end"] = round(float(start), 3), round(float(end), 3)
        least = end
