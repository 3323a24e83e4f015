"""Texts that are for or against something, made by a grammar: negation, contrast, time, expectation, and plain facts.

A bag of words cannot tell most of them apart: every clause is drawn for both verdicts with the same words, and half of
the texts hold a clause of the other verdict. Which one counts is what the sentence says: behind "but", not behind
"although", now and not before, found and not expected. The words are few and given here; whoever learns from these
texts knows no others.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

__all__ = ["BY_HAND", "LABELS", "Grammar"]

LABELS = ["negative", "neutral", "positive"]

THINGS = """film book hotel room phone battery screen keyboard soup coffee service concert play story ending music car
train camera jacket shop staff delivery game food museum bed bike website printer song album garden beach course
teacher""".split()
GOOD = """good great wonderful excellent lovely brilliant superb pleasant charming reliable clever delightful perfect
fantastic solid useful nice amazing beautiful impressive""".split()
BAD = """bad terrible awful poor dull boring ugly useless horrible dreadful weak slow noisy clumsy dirty annoying
disappointing stupid unpleasant miserable""".split()
PLAIN = "black blue green red round square wooden new small large Spanish Italian electric heavy".split()
LIKE, DISLIKE = "like love enjoy recommend admire".split(), "hate dislike regret despise".split()
VERY = ["", "", "", "very ", "really ", "quite ", "so ", "rather ", "absolutely "]
DAYS, WHERE = (
    "Monday Tuesday Friday Sunday yesterday".split(),
    "in town,on the train,at home,last week,in May".split(","),
)

#: For the score alone: no sentences of the grammar's, but with its words.
BY_HAND = {
    "positive": """I love this phone
not bad at all
there is nothing I dislike about the hotel
what a wonderful concert
the room was small but the bed was perfect
I was afraid the play would be boring, and it was brilliant
best coffee in town
you will not regret it
the staff could not have been nicer
it looks ugly and works beautifully
slow delivery, yet the bike itself is superb
I have never had a better teacher
it isn't the worst film of the year, it is the best
never a dull moment
if you like good food, go there""",
    "negative": """I hate this phone
not good at all
there is nothing I like about the hotel
what a terrible concert
the room was large but the bed was dreadful
I hoped the play would be brilliant, and it was boring
worst coffee in town
you will regret it
the staff could not have been worse
it looks beautiful and is useless
quick delivery, yet the bike itself is awful
I have never had a worse teacher
it isn't the best film of the year, it is the worst
not a single good moment
if you like good food, do not go there""",
    "neutral": """the phone is black
I bought it in May
is the hotel any good?
the concert was on Monday
the room has two windows
we went to the museum by train
the coffee is from Italy
has anybody read the book?
the staff wear red jackets
it is neither good nor bad
the bike came on Friday
my teacher has a new car
the film is about a train
do you know if the play is boring?
there are three songs on the album""",
}

Clause = tuple[str, bool]  # the text, and whether it negates


class Grammar:
    """``draw(label, kind)``: a text. ``kind`` "known" is what training sees: of two clauses at most one negates;
    "new": two clauses in contrast, both of which negate."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def draw(self, label: int, kind: str = "known") -> str:
        rng, verdict = self.rng, label - 1
        if not verdict:
            text = self.neutral()
        elif kind == "new":
            text = self.contrast(verdict, (True, True))
        elif rng.random() < 0.4:
            text = self.clause(verdict)[0]
        elif rng.random() < 0.75:
            first = bool(rng.random() < 0.4)
            text = self.contrast(verdict, (first, not first and bool(rng.random() < 0.5)))
        else:
            text = self.pick(["{} and {}", "{}, {}", "{}. {}", "{} because {}"]).format(
                self.clause(verdict)[0], self.clause(verdict)[0]
            )
        if rng.random() < 0.25:
            text = f"{self.fact()}. {text}"
        if rng.random() < 0.2:
            text = f"{text}. {self.fact()}"
        text = re.sub(r"\b([Aa]) (?=[aeiouAEIOU])", r"\1n ", text)
        if rng.random() < 0.2:
            text = text.replace("'", "")
        if not text.endswith("?") and rng.random() < 0.6:
            text += self.pick([".", ".", "!"])
        return text[0].upper() + text[1:] if rng.random() < 0.5 else text

    def pick(self, some: list[str]) -> str:
        return some[int(self.rng.integers(len(some)))]

    def word(self, verdict: int) -> str:
        return self.pick(GOOD if verdict > 0 else BAD)

    def thing(self) -> str:
        return self.pick(["the ", "the ", "the ", "this ", "our ", "their "]) + self.pick(THINGS)

    def clause(self, verdict: int, negated: bool | None = None) -> Clause:
        """With a negation, without, or either."""
        if negated is None:
            negated = bool(self.rng.random() < 0.45)
        make: Callable[[int], str] = self.turned if negated else self.straight
        return make(verdict), negated

    def straight(self, v: int) -> str:
        t, a, very = self.thing(), self.word(v), self.pick(VERY)
        forms = [
            f"{t} is {very}{a}", f"{t} was {very}{a}", f"{t} is {very}{a}", f"I find {t} {very}{a}", f"it is {very}{a}",
            f"what a {a} {self.pick(THINGS)}", f"it was a {very}{a} {self.pick(THINGS)}", f"I think {t} is {a}",
            f"I {self.pick(LIKE if v > 0 else DISLIKE)} {t}", f"we {self.pick(LIKE if v > 0 else DISLIKE)} {t}",
            f"{t} is the {'best' if v > 0 else 'worst'} of all", f"{t} is {'better' if v > 0 else 'worse'} than before",
            f"{t} is not only {a}, it is {self.word(v)}", f"no doubt {t} is {a}", f"{t} couldn't be more {a}",
            f"I have never seen a more {a} {self.pick(THINGS)}", f"never have I had a {'better' if v > 0 else 'worse'} "
            f"{self.pick(THINGS)}", f"{t} could not be {'better' if v > 0 else 'worse'}",
        ]  # fmt: skip
        return self.pick(forms)

    def turned(self, v: int) -> str:
        """What is said of the other verdict is denied."""
        t, a, very = self.thing(), self.word(-v), self.pick(VERY)
        forms = [
            f"{t} is not {very}{a}", f"{t} isn't {very}{a}", f"{t} wasn't {a} at all", f"{t} was never {a}",
            f"{t} is far from {a}", f"{t} is anything but {a}", f"there is nothing {a} about {t}", f"not {a} at all",
            f"I can't call {t} {a}", f"I don't think {t} is {very}{a}", f"nobody would call {t} {a}",
            f"I would not say that {t} is {a}", f"it is not a {a} {self.pick(THINGS)}",
        ]  # fmt: skip
        if v > 0:
            forms += [f"I don't regret {t}", f"you won't regret {t}", f"I can't find anything {a} about {t}"]
        else:
            verb = self.pick(LIKE)
            forms += [f"I don't {verb} {t}", f"we didn't {verb} {t}", f"nobody will {verb} {t}", f"I wish {t} was {a}"]
        return self.pick(forms)

    def contrast(self, v: int, negated: tuple[bool, bool]) -> str:
        """``negated``: the clause that does not count, and the one that does."""
        if not any(negated) and self.rng.random() < 0.35:
            return self.before_and_after(v)
        (other, _), (mine, _) = self.clause(-v, negated[0]), self.clause(v, negated[1])
        forms = [
            f"{other}, but {mine}", f"{other} but {mine}", f"{other}, yet {mine}", f"{other}. Still, {mine}",
            f"{other}. However, {mine}", f"although {other}, {mine}", f"even though {other}, {mine}",
            f"{mine}, although {other}", f"{mine}, even if {other}", f"{mine} even though {other}",
        ]  # fmt: skip
        if not negated[0]:
            forms += [f"despite the {self.word(-v)} {self.pick(THINGS)}, {mine}"]
        return self.pick(forms)

    def before_and_after(self, v: int) -> str:
        t, a, b = self.thing(), self.word(-v), self.word(v)
        forms = [
            f"{t} used to be {a}, now it is {b}", f"at first {t} seemed {a}, in the end it was {b}",
            f"I expected a {a} {self.pick(THINGS)} and got a {b} one", f"I thought {t} would be {a}, and it was {b}",
            f"everybody says {t} is {a}, I found it {b}", f"the old {self.pick(THINGS)} was {a}, this one is {b}",
            f"{t} is {b}, it used to be {a}", f"it looks {a} and is {b}", f"they call {t} {a}, I call it {b}",
            f"{t} is {b} and not {a}", f"{t} is not {a}, it is {b}", f"I hoped for something {a} and it was {b}",
        ]  # fmt: skip
        return self.pick(forms)

    def neutral(self) -> str:
        t, a = self.thing(), self.word(int(self.rng.choice([-1, 1])))
        if self.rng.random() < 0.5:
            return self.fact()
        forms = [
            f"is {t} {a}?", f"is {t} any good?", f"was {t} really {a}?", f"can anybody tell me if {t} is {a}?",
            f"does anybody {self.pick(LIKE)} {t}?", f"do you know whether {t} is {a}?", f"how {a} is {t}?",
            f"{t} is neither {self.word(1)} nor {self.word(-1)}", f"I don't know if {t} is {a}",
        ]  # fmt: skip
        return self.pick(forms)

    def fact(self) -> str:
        t, plain, day = self.thing(), self.pick(PLAIN), self.pick(DAYS)
        forms = [
            f"{t} is {plain}", f"{t} came on {day}", f"{t} was on {day}", f"I bought {t} {self.pick(WHERE)}",
            f"we went to {t} on {day}", f"{t} has two {self.pick(['doors', 'parts', 'buttons', 'windows'])}",
            f"{t} is not {plain}", f"we did not go to {t} on {day}", f"it comes in {plain} and {self.pick(PLAIN)}",
            f"there are three of them {self.pick(WHERE)}", f"{t} is about a {plain} {self.pick(THINGS)}",
            f"I have not seen {t} {self.pick(WHERE)}", f"my {self.pick(THINGS)} is {plain}, but {t} is {plain}",
        ]  # fmt: skip
        return self.pick(forms)
