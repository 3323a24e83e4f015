"""Whole numbers in JSON: 16000.0 is an integer, since JavaScript, Lua and many serialisers write integers so."""

from __future__ import annotations

from typing import Any

__all__ = ["whole"]

#: Larger float64 values have no fractions and may have been rounded.
EXACT = 2**53


def whole(value: Any) -> Any:
    """A JSON value in which every float that is a whole number has become an ``int``. It visits every element of lists,
    so it is too slow for tensors."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= EXACT else value
    if isinstance(value, list):
        return [whole(part) for part in value]
    if isinstance(value, dict):
        return {name: whole(part) for name, part in value.items()}
    return value
