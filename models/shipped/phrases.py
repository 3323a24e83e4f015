"""Generated number phrases: written numbers by class, each with the words of one of its readings."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

from streamer.tasks.spoken import LARGE, MOST, TENS, UNITS, WORDS, grouped, readings, suffix

Rng = np.random.Generator
#: The longest phrase, in words, and the longest written form, in signs with END; the model's memory fits them.
LONGEST, SIGNS = 24, 16


def _number(rng: Rng, most: int = MOST) -> int:
    """A random number up to ``most``: all lengths are equally likely, and digits are set to zero at random."""
    digits = int(rng.integers(1, len(str(most)) + 1))
    n = int(rng.integers(10 ** (digits - 1), 10**digits))
    for place in range(digits - 1):
        if rng.random() < 0.25:
            n -= n // 10**place % 10 * 10**place
    return min(n, most)


def _decimal(rng: Rng) -> str:
    whole = 0 if rng.random() < 0.15 else _number(rng, 99_999)
    return f"{grouped(whole)}.{''.join(map(str, rng.integers(0, 10, rng.integers(1, 5))))}"


def _year(rng: Rng) -> str:
    return str(rng.integers(1100, 2100))


def _time(rng: Rng) -> str:
    hour, minute = int(rng.integers(1, 13)), int(rng.integers(0, 60))
    if rng.random() < 0.6:
        half = " am" if rng.random() < 0.5 else " pm"
        return f"{hour}{half}" if rng.random() < 0.2 else f"{hour}:{minute:02d}{half}"
    return f"{hour}:{(0, 15, 30, 45, int(rng.integers(1, 30)))[rng.integers(0, 5)]:02d}"


def _money(rng: Rng) -> str:
    sign = "$" if rng.random() < 0.7 else "€"
    if rng.random() < 0.5:
        return f"{sign}{grouped(_number(rng))}"
    return f"{sign}{grouped(_number(rng, 99_999))}.{rng.integers(1, 100):02d}"


def _ordinal(rng: Rng) -> str:
    n = _number(rng, 999_999)
    return f"{grouped(n)}{suffix(n)}"


CLASSES: dict[str, Callable[[Rng], str]] = {
    "cardinal": lambda rng: grouped(_number(rng)),
    "decimal": _decimal,
    "ordinal": _ordinal,
    "year": _year,
    "time": _time,
    "negative": lambda rng: "-" + (_decimal(rng) if rng.random() < 0.3 else grouped(_number(rng))),
    "percent": lambda rng: (_decimal(rng) if rng.random() < 0.5 else grouped(_number(rng, 999))) + "%",
    "money": _money,
    "digits": lambda rng: "".join(map(str, rng.integers(0, 10, rng.integers(3, 13)))),
}


def held_out(written: str) -> bool:
    """Whether a number is held out of training, in all of its readings: one in ten."""
    return zlib.crc32(written.encode()) % 10 == 0


def phrase(rng: Rng, kind: str, held: bool = False) -> tuple[list[str], str]:
    """A random phrase of the class ``kind``: words of :data:`streamer.tasks.spoken.WORDS`, and their written form.
    ``held``: a held-out number."""
    while True:
        written = CLASSES[kind](rng)
        if held_out(written) != held:
            continue
        found = list(readings(written))
        if kind == "cardinal":  # read as a year, or digit by digit, it is another class
            found = found[:1]
        elif kind == "year":
            found = found[1:-1] or found[:1]
        elif kind == "digits":
            found = found[-1:]
        if not found:
            continue
        words = colloquial(rng, list(found[rng.integers(0, len(found))]))
        if len(words) <= LONGEST:
            return words, written


def colloquial(rng: Rng, words: list[str]) -> list[str]:
    """The words with colloquial forms, each in half of the phrases: "and", "a" for one, "oh" for zero."""
    ands, oh, a = rng.random(3) < 0.5
    found: list[str] = []
    for i, word in enumerate(words):
        small = word in UNITS or word in TENS
        behind = i and (words[i - 1] in LARGE or words[i - 1] in ("dollars", "euros"))
        if ands and behind and small and not set(words[i:]) & set(LARGE[:1]):
            found.append("and")
        if word == "one" and a and i == 0 and i + 1 < len(words) and words[1] in LARGE:
            word = "a"
        found.append("oh" if oh and word == "zero" and len(words) > 1 else word)
    return found


def parsed(words: list[str]) -> str:
    """The baseline: a rule-based parser of cardinals, ordinals, decimals, negatives and percents. Returns an empty
    string for anything else, such as years, times, money and strings of digits."""
    words = ["zero" if word == "oh" else word for word in words if word != "and"]
    sign = "-" if words and words[0] == "minus" else ""
    words = words[1:] if sign else words
    end = "%" if words and words[-1] == "percent" else ""
    words = words[:-1] if end else words
    part = ""
    if "point" in words:
        at = words.index("point")
        words, digits = words[:at] or ["zero"], words[at + 1 :]
        values = [UNITS.index(word) if word in UNITS[:10] else -1 for word in digits]
        if min(values, default=-1) < 0:
            return ""
        part = "." + "".join(map(str, values))
    total = below = 0
    cardinals = (*UNITS, *TENS, *LARGE)
    ordinals = WORDS[len(cardinals) : 2 * len(cardinals) - 1]  # zero has none
    for i, word in enumerate(words):
        if word in ordinals and i == len(words) - 1 and not (part or end or sign):
            word, end = cardinals[ordinals.index(word) + 1], "ordinal"
        if word in UNITS or word == "a":
            below += 1 if word == "a" else UNITS.index(word)
        elif word in TENS:
            below += 10 * (TENS.index(word) + 2)
        elif word == "hundred":
            below *= 100
        elif word in LARGE:
            total, below = total + below * 1000 ** LARGE.index(word), 0
        else:
            return ""
    n = total + below
    return f"{sign}{grouped(n)}{part}{suffix(n) if end == 'ordinal' else end}"
