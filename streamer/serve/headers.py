"""The headers of a request by their names, read once for all who ask."""

from __future__ import annotations

from starlette.types import Scope

__all__ = ["headers_of"]


def headers_of(scope: Scope) -> dict[str, str]:
    """Names in lower case. Of one that is said twice both, with a comma between them, as RFC 9110 has it: no rule and
    no reader takes that for one of them."""
    found: dict[str, str] | None = scope.get("headers_by_name")
    if found is None:
        found = scope["headers_by_name"] = {}
        for name, value in scope["headers"]:
            key, text = name.decode("latin-1"), value.decode("latin-1")
            found[key] = f"{found[key]}, {text}" if key in found else text
    return found
