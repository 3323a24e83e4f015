"""Sources of input: sound from files, standard input and the microphone, as PCM s16le mono; readings."""

from __future__ import annotations

__all__ = ["SourceError"]


class SourceError(ValueError):
    """Input that can't be used. The message names the input and the problem."""
