"""How options of all tasks are read, out of files and from clients."""

from __future__ import annotations

from pydantic import ConfigDict

__all__ = ["STRICT"]

#: A name that is not known is an error, a value of another type is not converted, and nothing changes later.
STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)
