"""How written numbers are said in English: the vocabulary, and every reading of a written number.

The model that writes numbers (:mod:`streamer.streams.numbers`) is checked with these readings: its output must have the
spoken words among its readings. The same readings made its training data. No sequence of words is a reading of two
different written numbers, so an output that passes the check is right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

__all__ = ["SIGNS", "WORDS", "canonical", "cardinal", "known", "ordinal", "readings", "says"]

UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
#: Ordinals that are not the cardinal's last word plus -th.
ODD = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
       "twelve": "twelfth"}  # fmt: skip
LARGE = ("hundred", "thousand", "million")
MONEY = {"$": "dollars", "€": "euros"}
HALVES = ("am", "pm")
#: Larger numbers are left in words.
MOST = 9_999_999


def _th(word: str) -> str:
    return ODD.get(word) or (word[:-1] + "ieth" if word.endswith("y") else word + "th")


#: Words of a spoken number; a word's code is its index here plus 1.
WORDS = (
    *UNITS, *TENS, *LARGE, *map(_th, (*UNITS[1:], *TENS, *LARGE)), "point", "minus", "percent", "and", "oh", "a",
    "half", "quarter", "past", "to", "o'clock", *HALVES, *MONEY.values(), "cents",
)  # fmt: skip
#: Characters of a written number; a character's code is its index here plus 2.
SIGNS = (*"0123456789", ".", ",", ":", "-", "%", *MONEY, "st", "nd", "rd", "th", " am", " pm")
SAME = {"negative": "minus", "dollar": "dollars", "euro": "euros", "cent": "cents", "a.m.": "am", "p.m.": "pm"}
WRITTEN = re.compile(
    r"(?P<minus>-)?(?P<money>[$€])?(?P<whole>\d{1,3}(?:,\d{3})+|\d+)(?:\.(?P<part>\d+))?(?P<end>%|st|nd|rd|th)?"
)
TIME = re.compile(r"(?P<hour>[1-9]|1[0-2])(?::(?P<minute>[0-5]\d))?(?P<half> am| pm)?")
#: "and" is part of a number only after these words.
JOINED = frozenset({*LARGE, "dollars", "euros"})


def known(word: str) -> str:
    """A transcript's word as a word of :data:`WORDS` ("negative" as "minus"); empty if it has none."""
    word = word.lower()
    word = SAME.get(word, word)
    return word if word in WORDS else ""


def canonical(words: Sequence[str]) -> tuple[str, ...]:
    """The words without the "and" of "two hundred and five"; "a" becomes "one" before hundred, "oh" becomes "zero"."""
    found: list[str] = []
    for i, word in enumerate(words):
        if word == "and" and i and words[i - 1] in JOINED and i + 1 < len(words):
            continue
        if word == "a" and not found and i + 1 < len(words) and words[i + 1] in LARGE:
            word = "one"
        found.append("zero" if word == "oh" else word)
    return tuple(found)


def says(words: Sequence[str], written: str) -> bool:
    """Whether ``words`` (of :data:`WORDS`) are a reading of ``written``."""
    return canonical(words) in set(readings(written))


def cardinal(n: int) -> tuple[str, ...]:
    """The words of ``n``, from 0 to 9,999,999."""
    if n < 20:
        return (UNITS[n],)
    if n < 100:
        return (TENS[n // 10 - 2], *(cardinal(n % 10) if n % 10 else ()))
    size, name = next((s, w) for s, w in ((10**6, "million"), (1000, "thousand"), (100, "hundred")) if n >= s)
    return (*cardinal(n // size), name, *(cardinal(n % size) if n % size else ()))


def ordinal(n: int) -> tuple[str, ...]:
    """The words of the ordinal of ``n``, as :func:`cardinal` has them but for the last."""
    *before, last = cardinal(n)
    return (*before, _th(last))


def suffix(n: int) -> str:
    """The suffix of an ordinal in digits: st, nd, rd or th."""
    return "th" if n // 10 % 10 == 1 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")


def grouped(n: int) -> str:
    """``n`` in digits, with commas from five digits on, since 1999 may be a year."""
    return f"{n:,}" if n >= 10_000 else str(n)


def readings(written: str) -> Iterator[tuple[str, ...]]:
    """Every canonical reading of a written number; empty if the text is not written as this project writes numbers."""
    if time := TIME.fullmatch(written):
        yield from _times(int(time["hour"]), time["minute"], (time["half"] or "").strip())
    if number := WRITTEN.fullmatch(written):
        for reading in _numbers(number):
            yield ("minus", *reading) if number["minus"] else reading


def _numbers(number: re.Match[str]) -> Iterator[tuple[str, ...]]:
    whole, part, end, money = number["whole"], number["part"], number["end"], number["money"]
    n = int(whole.replace(",", ""))
    if end == "%":
        yield from ((*reading, "percent") for reading in _plain(whole, n, part))
    elif end:
        if money is None and part is None and number["minus"] is None and whole == grouped(n) and end == suffix(n):
            yield from (ordinal(n),) if n <= MOST and n % 100 else ()  # "one hundredth" may be a fraction
    elif money:
        name = MONEY[money]
        yield from ((*reading, name) for reading in _plain(whole, n, part))
        if part is not None and len(part) == 2 and int(part) and whole == grouped(n) and n <= MOST:
            both = (*cardinal(n), name, *cardinal(int(part)))
            yield from (both, (*both, "cents")) if int(part) > 9 else ((*both, "cents"),)
    else:
        yield from _plain(whole, n, part)
        if part is None and number["minus"] is None and "," not in whole:
            yield from _years(whole, n)
            if len(whole) > 2:  # two digits in a row may as well be two numbers
                yield tuple(UNITS[int(digit)] for digit in whole)


def _plain(whole: str, n: int, part: str | None) -> Iterator[tuple[str, ...]]:
    """A cardinal, or a decimal, whose digits after the point are said one by one."""
    if whole != grouped(n) or n > MOST:
        return
    if part is None:
        yield cardinal(n)
        return
    yield (*cardinal(n), "point", *(UNITS[int(digit)] for digit in part))  # "point five" alone is not a number


def _years(whole: str, n: int) -> Iterator[tuple[str, ...]]:
    """ "nineteen ninety nine", "nineteen oh five", and also "twelve hundred fifty". Two numbers that look like a time
    of day are not a year."""
    century, rest = divmod(n, 100)
    if len(whole) != 4 or whole[0] == "0":
        return
    if 1500 <= n < 2100 and rest:
        yield (*cardinal(century), *(("zero",) if rest < 10 else ()), *cardinal(rest))
    if 1100 <= n < 2000:
        yield (*cardinal(century), "hundred", *(cardinal(rest) if rest else ()))


def _times(hour: int, minute: str | None, half: str) -> Iterator[tuple[str, ...]]:
    name, tail = cardinal(hour), ((half,) if half else ())
    if minute is None:
        if half:
            yield (*name, half)
        return
    m = int(minute)
    if m == 0:
        yield (*name, "o'clock", *tail)
        return
    if half:
        yield (*name, *(("zero",) if m < 10 else ()), *cardinal(m), half)
    if 0 < m < 30:
        yield (*cardinal(m), "past", *name, *tail)
    if m in (15, 30):
        yield ("quarter" if m == 15 else "half", "past", *name, *tail)
    if m == 45:  # "ten to six" may be a range, "a quarter to six" can't
        yield ("quarter", "to", *cardinal(hour % 12 + 1), *tail)


def text(signs: Iterable[int]) -> str:
    """The text of character codes from 2 on."""
    return "".join(SIGNS[sign - 2] for sign in signs)
