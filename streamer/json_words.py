"""Why JSON can't be read, in words for its sender: those of the interpreter are about itself."""

from __future__ import annotations

__all__ = ["json_trouble"]


def json_trouble(error: Exception) -> str:
    """What the decoder's error says."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if "integer string conversion" in str(error):
        return "it holds a number that is too large"
    return str(error)
