"""Normalises words for scoring, so that references and all systems' transcripts have the same spelling."""

from __future__ import annotations

import random
import re

from models.speech.corpus.spoken import speak

__all__ = ["plain"]

#: Contractions that are unambiguous without their sentence, unlike "'d" and the "'s" of names.
_SHORT = (
    (r"\bwon't\b", "will not"), (r"\bcan't\b", "can not"), (r"\bcannot\b", "can not"), (r"\bshan't\b", "shall not"),
    (r"n't\b", " not"), (r"'ll\b", " will"), (r"'re\b", " are"), (r"'ve\b", " have"), (r"\bi'm\b", "i am"),
    (r"\blet's\b", "let us"), (r"\b(it|that|there|here|what|where|who|how|he|she)'s\b", r"\1 is"),
    (r"\bo'clock\b", "oclock"), (r"\bokay\b", "ok"), (r"\bmr\b", "mister"), (r"\bmrs\b", "missus"),
)  # fmt: skip


def plain(text: str) -> list[str]:
    """The words in lower case, without marks, with numbers in words (always the same of several readings) and expanded
    contractions."""
    text = text.replace("\u2019", "'").replace("\u2018", "'").replace("%", " percent ")
    # a text in capitals would be spelled letter by letter
    said = speak(text.lower() if text.isupper() else text, random.Random(0))
    text = re.sub(r"[\u2013\u2014/-]", " ", (said or text).replace("^", "")).lower()
    for pattern, full in _SHORT:
        text = re.sub(pattern, full, text)
    return re.sub(r"[^a-z0-9' ]+", " ", text).replace(" '", " ").replace("' ", " ").strip(" '").split()
