"""Whole numbers in JSON: 16000.0 is one, as JavaScript, Lua and many serialisers write it."""

from __future__ import annotations

from typing import Any

__all__ = ["whole"]

#: Beyond it a float64 has no fractions, and may not be the number that was meant.
EXACT = 2**53


def whole(value: Any) -> Any:
    """``value``, a JSON value, in which every float that is a whole number is an ``int``. Its lists are walked through,
    so give it no tensors."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= EXACT else value
    if isinstance(value, list):
        return [whole(part) for part in value]
    if isinstance(value, dict):
        return {name: whole(part) for name, part in value.items()}
    return value
