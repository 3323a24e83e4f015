"""The pydantic configuration of every task's options, in model files and from clients."""

from __future__ import annotations

from pydantic import ConfigDict

__all__ = ["STRICT"]

#: Unknown names are errors, values of another type are not converted, and options are immutable.
STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)
