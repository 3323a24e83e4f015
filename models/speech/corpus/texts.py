"""Texts for the corpus: lines of the shared texts in spoken words, and generated texts of rare kinds."""

from __future__ import annotations

import gzip
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from models.speech.corpus.spoken import MONTHS, cardinal, digits, ordinal, speak, spelled, words, year

SHORTEST, LONGEST = 2, 24  # words
#: The most characters of a text: about twelve seconds of speech.
SYMBOLS = 150


@dataclass(frozen=True)
class TextSource:
    """``share``: of the corpus's texts. ``licence``: of the texts."""

    name: str
    share: float
    licence: str
    file: str | None = None  # in the shared data; ``None`` for generated texts


MADE_TEXTS = TextSource("made", 0.14, "Apache-2.0 (this project)")
SOURCES = (
    TextSource("dialogue", 0.30, "CC BY-SA 4.0 (Schema-Guided Dialogue)", "text/dialogue.txt.gz"),
    TextSource("calls", 0.22, "CC BY-SA 4.0 (Rev earnings21/22)", "text/earnings_calls.txt.gz"),
    TextSource("prompts", 0.15, "CC BY 4.0 (VCTK prompts)", "text/prompts.txt.gz"),
    TextSource("books", 0.16, "public domain (LJ Speech), CC BY 4.0 (LibriSpeech)", "text/sentences.txt"),
    TextSource("orders", 0.03, "CC BY 4.0 (Taskmaster)", "text/orders.txt.gz"),
    MADE_TEXTS,
)


@dataclass(frozen=True)
class CorpusText:
    """``spoken``: with sentence marks, from :func:`.spoken.speak`."""

    spoken: str
    source: TextSource


class CorpusTexts:
    """Random texts. ``data``: the folder of the shared data. A draw depends only on the random generator."""

    def __init__(self, data: Path) -> None:
        self.lines = {source.name: _read(data / source.file) for source in SOURCES if source.file}
        said = (word for line in self.lines["calls"][::7] for word in re.findall(r"(?<=[a-z] )[A-Z][a-z]{2,}", line))
        self.names = sorted(set(said))

    def draw(self, rng: random.Random) -> CorpusText:
        """A text of :data:`SHORTEST` to :data:`LONGEST` words."""
        while True:
            (source,) = rng.choices(SOURCES, [source.share for source in SOURCES])
            text = self._made(rng) if source.file is None else self._read_out(source, rng)
            if text is not None:
                return CorpusText(text, source)

    def _read_out(self, source: TextSource, rng: random.Random) -> str | None:
        line = rng.choice(self.lines[source.name])
        if source.name == "books":
            line = _sentence(line)
        text = speak(line, rng)
        return None if text is None else piece(text, rng)

    def _made(self, rng: random.Random) -> str | None:
        (make,) = rng.choices([make for make, _ in MADE], [share for _, share in MADE])
        text = make(rng, self.names)
        return None if len(text) > SYMBOLS else text[0].upper() + text[1:]


def _read(path: Path) -> list[str]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    return [line.strip() for line in text.splitlines() if line.strip()]


def _sentence(line: str) -> str:
    """A line of capitals as a sentence in lower case; names lose their capital, which voices do not need."""
    return re.sub(r"\bi\b", "I", line.lower()) + "."


def piece(text: str, rng: random.Random) -> str | None:
    """A text that can be spoken at once: the whole, or a part between marks, or without marks a run of words; ``None``
    if there is none."""
    if fits(text):
        return text
    parts = re.split(r"(?<=[,.?!;:]) ", text)
    start = rng.randrange(len(parts))
    out = parts[start]
    for part in parts[start + 1 :]:
        if not fits(longer := f"{out} {part}"):
            break
        out = longer
    if not fits(out):
        spaced = out.split()
        if len(spaced) < SHORTEST:
            return None
        length = rng.randint(SHORTEST, min(12, len(spaced)))
        start = rng.randrange(len(spaced) - length + 1)
        out = " ".join(spaced[start : start + length])
    out = out.strip(" ,;:")
    return out[0].upper() + out[1:] if fits(out) else None


def fits(text: str) -> bool:
    return SHORTEST <= len(words(text)) <= LONGEST and len(text) <= SYMBOLS


# --- generated texts ----------------------------------------------------------------------------------------------

Make = Callable[[random.Random, list[str]], str]

_COMMANDS = """\
Turn {on} the {device} in the {room}|Set the {device} to {number} percent|Set a timer for {number} minutes
Wake me up at {time}|Play some {music} in the {room}|Call {name}|Send a message to {name}|What's the weather in {name}
Remind me to call {name} at {time}|Stop the {device}|Pause the music|Next song please|Open the {room} window
Close the blinds in the {room}|Make it {degree} degrees in the {room}|Turn {on} the {device}|Add {food} to the list
Navigate to {name} street|Volume {up}|Start the {device}|Lock the {room} door|How long is the way to {name}
Dim the {room} lights|Turn the {device} {up}|Cancel my alarm for {day}|Mute|Read my messages|Take a note|Go back
Add {number} to the order|Show me the {room} camera|Is the {device} still {on}|Order {number} {food}|Good night
Turn {on} the {device} at {time} on {day}|Skip to chapter {number}|Delete the last line|New paragraph|Scroll {up}
Increase the speed by {number}|Move {number} meters to the left|Pick up the box on shelf {number}|Select all"""
_FILL = {
    "on": "on off",
    "up": "up down",
    "device": "lights,lamp,heating,fan,radio,oven,dishwasher,television,alarm,pump,air conditioning,coffee machine,"
    "vacuum,washing machine,speaker,robot,conveyor,valve,sprinkler,printer",
    "room": "kitchen,bedroom,bathroom,living room,hall,garage,cellar,office,garden,dining room,attic,laundry,workshop",
    "music": "jazz,rock,piano music,classical music,blues,folk songs,quiet music,electronic music,reggae",
    "food": "milk,bread,eggs,butter,apples,coffee,tea,rice,tomatoes,onions,cheese,yoghurt,chicken,bananas,sugar,salt",
    "day": "Monday,Tuesday,Wednesday,Thursday,Friday,Saturday,Sunday,tomorrow,today,the weekend",
}
_TEMPLATES = re.split(r"[|\n]", _COMMANDS)


def _time(rng: random.Random) -> str:
    hour, minute = rng.randint(1, 12), rng.choice((0, 0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, rng.randint(1, 59)))
    style = rng.random()
    if style < 0.2 and minute == 15:
        return f"a quarter past {cardinal(hour)}"
    if style < 0.3 and minute == 30:
        return f"half past {cardinal(hour)}"
    said = cardinal(hour) if not minute else f"{cardinal(hour)} {'oh ' if minute < 10 else ''}{cardinal(minute)}"
    return f"{said} {spelled(rng.choice(('am', 'pm')))}" if rng.random() < 0.5 else said


def command(rng: random.Random, names: list[str]) -> str:
    def fill(match: re.Match[str]) -> str:
        match match[1]:
            case "number":
                return cardinal(rng.choice((rng.randint(2, 12), rng.randint(2, 99), 5 * rng.randint(1, 20))))
            case "degree":
                return cardinal(rng.randint(15, 30))
            case "time":
                return _time(rng)
            case "name":
                return rng.choice(names)
            case other:
                return rng.choice(re.split(r",|(?<=n) (?=off)|(?<=p) (?=down)", _FILL[other]))

    text = re.sub(r"\{(\w+)\}", fill, rng.choice(_TEMPLATES).strip())
    before, after = rng.choice(("", "", "", "Please ", "Could you ", "Hey, ")), rng.choice(("", "", " please", " now"))
    return f"{before}{text[0].lower() + text[1:] if before else text}{after}."


def digit_string(rng: random.Random, names: list[str]) -> str:
    said = digits("".join(rng.choice("0123456789") for _ in range(rng.randint(1, 9))), rng).split()
    marks = [", " if rng.random() < 0.25 else " " for _ in said]
    return "".join(word + mark for word, mark in zip(said, marks, strict=True)).strip(" ,") + "."


def draw_digits(rng: random.Random) -> CorpusText:
    """One to nine digits; "zero" is never "oh"."""
    said = digit_string(rng, [])
    while "OH" in words(said):
        said = digit_string(rng, [])
    return CorpusText(said, MADE_TEXTS)


def number(rng: random.Random, names: list[str]) -> str:
    def one() -> str:
        size = rng.choice((100, 1000, 10_000, 1_000_000))
        style, whole = rng.random(), rng.randrange(size)
        if style < 0.15:
            return f"{cardinal(whole)} point {digits(str(rng.randrange(100)), rng)}"
        if style < 0.3:
            return ordinal(rng.randint(1, 100))
        if style < 0.4:
            return f"minus {cardinal(whole)}"
        said = cardinal(whole)
        return said.replace(" and ", " ") if rng.random() < 0.6 else said

    unit = rng.choice("dollars,percent,kilometers,euros,people,degrees,grams,hours,points,meters,,,,".split(","))
    frame = rng.choice(("{}", "{}", "it was {}", "from {} to {}", "about {}", "{} and {}", "the total is {}", "{}, {}"))
    return f"{frame.format(one(), one())} {unit}".strip() + "."


def date(rng: random.Random, names: list[str]) -> str:
    month, day, long = rng.choice(MONTHS), rng.randint(1, 31), rng.randint(1700, 2049)
    said = rng.choice((f"{month} {ordinal(day)}", f"the {ordinal(day)} of {month}", f"{month} the {ordinal(day)}"))
    said += rng.choice(("", f", {year(long)}", f" {year(long)}"))
    frame = rng.choice(("{}", "On {} at {}", "It was {}", "We meet on {}", "Born on {}", "See you on {} at {}"))
    return frame.format(said, _time(rng)) + "."


def spelling(rng: random.Random, names: list[str]) -> str:
    """Spelled names, or codes of letters and digits."""
    if rng.random() < 0.5:
        name = rng.choice(names)
        frame = rng.choice(("{0}, {1}", "{1}", "My name is {0}, {1}", "That is {1}", "{0} is spelled {1}"))
        return frame.format(name, ", ".join(spelled(name[i : i + 3]) for i in range(0, min(len(name), 9), 3))) + "."
    code = "".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") for _ in range(rng.randint(3, 7)))
    said = " ".join(spelled(c) if c.isalpha() else digits(c, rng) for c in code)
    return rng.choice(("{}", "{}", "The code is {}", "Gate {}", "Flight {}", "Reference {}")).format(said) + "."


def name_list(rng: random.Random, names: list[str]) -> str:
    chosen = [rng.choice(names) for _ in range(rng.randint(2, 4))]
    frame = rng.choice(("{} and {}", "{} from {}", "This is {} {} speaking", "{}, {}", "I spoke to {} {} today"))
    return frame.format(" ".join(chosen[:-1]), chosen[-1]) + "."


def single_words(rng: random.Random, names: list[str]) -> str:
    common = (
        "yes no stop go left right up down okay thanks hello goodbye maybe never always please sorry wait start".split()
    )
    return ", ".join(rng.choice(common) for _ in range(rng.randint(1, 4))) + "."


MADE: tuple[tuple[Make, float], ...] = (
    (command, 0.26), (digit_string, 0.24), (number, 0.16), (date, 0.1), (spelling, 0.12), (name_list, 0.07),
    (single_words, 0.05),
)  # fmt: skip
