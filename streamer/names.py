"""Checks names given by clients: sensors, stream keys, topics. They are keys in memory, in the store and in metrics."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "NAME_CHARACTERS",
    "SEPARATOR",
    "SERIES_CHARACTERS",
    "NameRefusedError",
    "check_name",
    "name_of",
    "owner_of",
    "series_name",
    "stream_id",
]

NAME_CHARACTERS = 200
#: Longest name made of a metric and its labels, as in Prometheus.
SERIES_CHARACTERS = 1000
SHOWN = 40
#: Separates owner and name in a stream's id. It is not printable, so a client's name can't contain it.
SEPARATOR = "\x1f"


class NameRefusedError(ValueError):
    """The text is not a valid name. The message states the rule and shows the beginning of the text."""


def check_name(text: str, most: int = NAME_CHARACTERS) -> str:
    """Return ``text`` if it is a valid name, 1 to ``most`` printable characters; else raise :class:`NameRefusedError`.

    Control characters and lone surrogates are not printable, so a name can always be written as UTF-8.
    """
    if not text or len(text) > most or not text.isprintable():
        raise NameRefusedError(f"{text[:SHOWN]!a} is not a name (1 to {most} printable characters)")
    return text


def series_name(metric: str, labels: Iterable[tuple[str, str]]) -> str:
    """``metric{label="value",...}`` with the labels sorted. Raises :class:`NameRefusedError` for an invalid name."""
    pairs = sorted((label, value) for label, value in labels if value)
    inside = ",".join(f'{label}="{_escaped(value)}"' for label, value in pairs)
    return check_name(f"{metric}{{{inside}}}" if inside else metric, SERIES_CHARACTERS)


def stream_id(owner: str, name: str) -> str:
    """The id of a stream, unique among all owners. Without an owner (``""``) the name is the id."""
    return f"{owner}{SEPARATOR}{name}" if owner else name


def owner_of(id: str) -> str:
    """The owner in a stream's id; ``""``: none."""
    return id.rpartition(SEPARATOR)[0]


def name_of(id: str) -> str:
    """The name in a stream's id, without its owner."""
    return id.rpartition(SEPARATOR)[2]


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
