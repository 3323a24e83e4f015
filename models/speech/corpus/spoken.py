# ruff: noqa: RUF001
"""Converts written sentences to spoken form: numbers, times, dates, money and abbreviations become words.

A spoken text has only letters, apostrophes and sentence marks; texts with anything else are rejected, so that labels
are always what a voice says. A spelled letter has a ``^`` before it: ``^A ^M`` has no article.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from functools import lru_cache

from num2words import num2words

MONTHS = "January February March April May June July August September October November December".split()
_MONTH = "|".join([*MONTHS, *(f"{month[:3]}" for month in MONTHS), "Sept"])
_NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"
_BIG = r"hundred|thousand|million|billion|trillion"
_SHORT = {"k": "thousand", "m": "million", "mm": "million", "b": "billion", "bn": "billion"}
_CURRENCIES = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent")}
_WORDS = {
    "mr": "mister", "mrs": "missus", "dr": "doctor", "prof": "professor", "vs": "versus", "etc": "et cetera",
    "approx": "approximately", "ave": "avenue", "blvd": "boulevard", "rd": "road", "ln": "lane", "apt": "apartment",
    "dept": "department", "govt": "government", "inc": "incorporated", "corp": "corporation", "co": "company",
    "ltd": "limited",
}  # fmt: skip
#: Abbreviations that are also words are expanded only with their full stop or capital.
_DOTTED = re.compile(
    r"\b(Mr|Mrs|Dr|Prof|Inc|Corp|Ltd|Ave|Blvd|Dept|Govt)\b\.?|\b((?i:vs|etc|approx))\b\.?|\b(Rd|Ln|Apt|Co)\."
)
#: The characters of a spoken text.
_LEFT = re.compile(r"[A-Za-z^' ,.?!;:-]+")
LONGEST = 24  # letters of a word; texts with a longer one are rejected
_DIGITS = "zero one two three four five six seven eight nine".split()


def cardinal(number: int) -> str:
    return _plain(num2words(number))


def ordinal(number: int) -> str:
    return _plain(num2words(number, to="ordinal"))


def year(number: int) -> str:
    return _plain(num2words(number, to="year"))


def digits(text: str, rng: random.Random) -> str:
    """Digits one by one; zero is sometimes "oh", for all zeros of a text."""
    zero = rng.choice(("zero", "zero", "oh"))
    return " ".join(zero if digit == "0" else _DIGITS[int(digit)] for digit in text if digit.isdigit())


def spelled(letters: str) -> str:
    return " ".join("^" + letter.upper() for letter in letters)


def _plain(words: str) -> str:
    return words.replace(",", "").replace("-", " ")


def amount(text: str) -> str:
    """A number such as ``1,250.75`` in words."""
    whole, _, part = text.replace(",", "").partition(".")
    said = cardinal(int(whole or 0))
    return f"{said} point {' '.join(_DIGITS[int(d)] for d in part)}" if part else said


def speak(text: str, rng: random.Random) -> str | None:
    """A text in spoken words with its sentence marks, ``None`` if the reading of a part is unclear. ``rng``: chooses
    among several readings."""
    text = text.translate(_QUOTES).replace("\\r", "")
    for pattern, say in _rules():
        text = pattern.sub(lambda match, say=say: f" {say(match, rng)} ", text)  # type: ignore[misc]
    text = re.sub(r"(?<=[A-Za-z])[-/](?=[A-Za-z])", " ", text)
    text = re.sub(r" ?(?:--?|[()\"[\]]|\.{3,}) ?", " ", text)
    text = re.sub(r"\s+([,.?!;:])", r"\1", re.sub(r"\s+", " ", text)).strip(" ,;:-")
    text = re.sub(r"([,.?!;:])[,.?!;:]+", r"\1", text)
    text = re.sub(r"([,.?!;:])(?=[A-Za-z^])", r"\1 ", text)
    if not _LEFT.fullmatch(text) or not re.search("[A-Za-z]", text):
        return None
    if max(map(len, words(text))) > LONGEST:
        return None
    return text[0].upper() + text[1:]


def words(text: str) -> list[str]:
    """The words of a spoken text, in capitals, with inner apostrophes."""
    found = (word.strip("'").upper() for word in re.split(r"[^A-Za-z']+", text))
    return [word for word in found if word]


_QUOTES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": ",", "\t": " ", "`": "'",
                         "é": "e", "è": "e", "ñ": "n", "ö": "o", "ü": "u", "á": "a", "ó": "o", "í": "i"})  # fmt: skip

Say = Callable[[re.Match[str], random.Random], str]


def _time(match: re.Match[str], rng: random.Random) -> str:
    hour, minute, half = int(match[1]), int(match[2]), match[3]
    if hour > 24 or minute > 59:
        return match[0]
    if minute == 0:
        said = cardinal(hour) if half or rng.random() < 0.3 else f"{cardinal(hour)} o'clock"
    else:
        said = f"{cardinal(hour)} {'oh ' if minute < 10 else ''}{cardinal(minute)}"
    return f"{said} {spelled(half + 'm')}" if half else said


def _month(name: str) -> str:
    return next(month for month in MONTHS if month.startswith(name[:3].capitalize()))


def _date(match: re.Match[str], rng: random.Random) -> str:
    said = f"{_month(match[1])} {rng.choice(('', '', 'the '))}{ordinal(int(match[2]))}"
    return f"{said}, {year(int(match[3]))}" if match[3] else said


def _day(match: re.Match[str], rng: random.Random) -> str:
    return f"{rng.choice(('the ', 'the ', ''))}{ordinal(int(match[1]))} of {_month(match[2])}"


def _slashes(match: re.Match[str], rng: random.Random) -> str:
    month, day, long = int(match[1]), int(match[2]), int(match[3])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return match[0]
    return f"{MONTHS[month - 1]} {ordinal(day)} {year(long if long > 99 else 2000 + long)}"


def _money(match: re.Match[str], rng: random.Random) -> str:
    unit, part = _CURRENCIES[match[1]]
    whole, _, cents = match[2].replace(",", "").partition(".")
    big = match[3] and _SHORT.get(match[3].lower(), match[3].lower())
    if big:
        return f"{amount(match[2])} {big} {unit}s"
    units = unit if int(whole) == 1 else unit + "s"
    if len(cents) == 2 and int(cents):
        small = "pence" if part == "penny" else part if int(cents) == 1 else part + "s"
        if rng.random() < 0.4 and int(whole) and int(cents) > 9:
            return f"{cardinal(int(whole))} {cardinal(int(cents))}"
        return f"{cardinal(int(whole))} {units} {rng.choice(('and ', ''))}{cardinal(int(cents))} {small}"
    return f"{amount(match[2] if int(cents or 0) else whole)} {units}"


def _phone(match: re.Match[str], rng: random.Random) -> str:
    return ", ".join(digits(part, rng) for part in re.split(r"\D+", match[0]) if part)


def _long(match: re.Match[str], rng: random.Random) -> str:
    """A number in words: years as years, house and flight numbers sometimes in pairs, long ones digit by digit."""
    text = match[0]
    if "," in text or "." in text:
        return amount(text)
    number = int(text)
    if len(text) > 6 or (len(text) > 1 and text[0] == "0"):
        return digits(text, rng)
    if len(text) == 4 and (1900 <= number <= 2099 or (number % 100 and rng.random() < 0.5)):
        return year(number)
    if len(text) == 3 and number % 100 > 9 and rng.random() < 0.2:
        return f"{cardinal(number // 100)} {cardinal(number % 100)}"
    said = cardinal(number)
    return said.replace(" and ", " ") if rng.random() < 0.6 else said


@lru_cache(1)
def _rules() -> list[tuple[re.Pattern[str], Say]]:
    def rule(pattern: str, say: Say, flags: int = 0) -> tuple[re.Pattern[str], Say]:
        return re.compile(pattern, flags), say

    ignore = re.IGNORECASE
    return [
        rule(r"<[^>]*>", lambda m, r: ""),  # marks of transcribers
        rule(r"\b(\d{1,2}):(\d{2})(?:\s?([ap])\.?m\b(?:\.(?!\s+(?-i:[A-Z])))?)?", _time, ignore),
        rule(
            r"\b(\d{1,2})\s?([ap])\.?m\b(?:\.(?!\s+(?-i:[A-Z])))?",
            lambda m, r: f"{cardinal(int(m[1]))} {spelled(m[2] + 'm')}",
            ignore,
        ),
        rule(r"\b(\d{1,2})/(\d{1,2})/(\d{4}|\d{2})\b", _slashes),
        rule(rf"\b({_MONTH})\.? (\d{{1,2}})(?:st|nd|rd|th)?\b(?:,? (\d{{4}})\b)?(?![\d:%])", _date),
        rule(rf"\b(?:the )?(\d{{1,2}})(?:st|nd|rd|th)?(?: of)? ({_MONTH})\b", _day),
        rule(rf"([$£€])\s?({_NUMBER})(?:\s?({_BIG}|[kmb]|bn|mm)\b)?", _money, ignore),
        rule(rf"({_NUMBER})\s?%", lambda m, r: f"{amount(m[1])} percent"),
        rule(r"\(?\b\d{3}\)?[-. ]\d{3}[-. ]\d{4}\b|\b\d{3}-\d{4}\b", _phone),
        rule(r"\b24/7\b", lambda m, r: "twenty four seven"),
        rule(r"\b1/2\b", lambda m, r: "one half"),
        rule(r"\b([13])/4\b", lambda m, r: "a quarter" if m[1] == "1" else "three quarters"),
        rule(r"\b(\d{1,4})\s?-\s?(\d{1,4})\b", lambda m, r: f"{cardinal(int(m[1]))} to {cardinal(int(m[2]))}"),
        rule(r"\b(\d{1,3}(?:,\d{3})*)(?:st|nd|rd|th)\b", lambda m, r: ordinal(int(m[1].replace(",", "")))),
        rule(r"\b(\d0)'?s\b", lambda m, r: re.sub("y$", "ie", cardinal(int(m[1]))) + "s"),
        rule(r"\b((?:19|20)\d)0'?s\b", lambda m, r: re.sub("y$", "ie", year(10 * int(m[1]))) + "s"),
        rule(r"(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])", lambda m, r: ""),
        rule(r"#\s?(?=\d)", lambda m, r: "number"),
        rule(r"\boz\b\.?", lambda m, r: "ounce"),
        rule(_NUMBER, _long),
        rule(r"&", lambda m, r: "and"),
        rule(r"(?<=\w)\s?\+\s?(?=\w)", lambda m, r: "plus"),
        rule(r"\b([ap])\.m\.", lambda m, r: spelled(m[1] + "m"), ignore),
        rule(r"\b(?:[A-Za-z]\.){2,}", lambda m, r: spelled(m[0].replace(".", ""))),
        (_DOTTED, lambda m, r: _WORDS[next(g for g in m.groups() if g).lower()]),
    ]
