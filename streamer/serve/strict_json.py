"""JSON of others' clients, of which parts are told back: only numbers that can be written again are taken."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

__all__ = ["strict_json"]


def strict_json(data: bytes) -> Any:
    """Raises ``ValueError`` for what is no JSON, for numbers that are none or beyond all bounds, and for what is nested
    too deep."""
    try:
        return _DECODER.decode(data.decode(json.detect_encoding(data), "surrogatepass"))
    except RecursionError:
        raise ValueError("nested too deep") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:40]} is beyond all numbers")
    return value


_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)
