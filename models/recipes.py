"""Recipes by name."""

from __future__ import annotations

from pathlib import Path

from models.names import ENGLISH, NAMES
from models.training.recipe import Recipe, set_normaliser

__all__ = ["NAMES", "Recipe", "make", "set_normaliser"]


def make(name: str, corpus: Path | None = None, everybody: bool = False) -> Recipe:
    """The recipe ``name``. Raises ``ValueError`` for an unknown name (the message lists the known ones), without the
    ``corpus`` it needs, or for ``everybody`` where there are no development speakers.

    ``everybody``: train on the development speakers, too, in the last minutes of a training whose settings are final.
    The error rates of these speakers mean nothing afterwards.
    """
    from models.shipped import english, speech
    from models.speech import librispeech
    from models.training import tiny

    if everybody and name in NAMES and name not in ("digits", *ENGLISH):
        raise ValueError(f"{name} has no development speakers to train on: leave out --everybody")
    if name in ("librispeech", "librispeech-tiny"):
        if corpus is None:
            raise ValueError(f"{name} needs --corpus, the folder that holds train-clean-100")
        return librispeech.librispeech(corpus, small=name.endswith("tiny"))
    if name == "digits":
        return speech.digits(everybody)
    if name in ENGLISH:
        return english.english(ENGLISH[name], everybody)
    if name in ("tiny-lstm", "tiny-wavenet"):
        return tiny.tiny(name.removeprefix("tiny-"))
    raise ValueError(f"no recipe {name!r}; there are: {', '.join(NAMES)}")
