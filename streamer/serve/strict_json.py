"""JSON from clients to which parts of it are sent back: only numbers that JSON can hold are accepted."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from streamer.json_words import json_trouble

__all__ = ["strict_json"]


def strict_json(data: bytes) -> Any:
    """Parse JSON. Raises ``ValueError`` for invalid JSON, NaN, infinity, numbers beyond float64, and values that are
    nested too deep."""
    try:
        return _DECODER.decode(data.decode(json.detect_encoding(data), "surrogatepass"))
    except RecursionError:
        raise ValueError("nested too deep") from None
    except ValueError as error:
        if (why := json_trouble(error)) == str(error):
            raise
        raise ValueError(why) from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:40]} is too large for a number")
    return value


_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)
