"""What brings audio in by itself: files, standard input, the microphone. All of it becomes PCM s16le mono."""

from __future__ import annotations

__all__ = ["SourceError"]


class SourceError(ValueError):
    """Input that can't be used. The message names the input and what is wrong with it."""
