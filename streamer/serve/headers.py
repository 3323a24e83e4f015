"""The headers of a request by name, read once for all layers."""

from __future__ import annotations

from starlette.types import Scope

__all__ = ["headers_of"]


def headers_of(scope: Scope) -> dict[str, str]:
    """The headers by lower-case name. Values of a repeated header are joined with a comma (RFC 9110), so that a rule
    never sees only one of them."""
    found: dict[str, str] | None = scope.get("headers_by_name")
    if found is None:
        found = scope["headers_by_name"] = {}
        for name, value in scope["headers"]:
            key, text = name.decode("latin-1"), value.decode("latin-1")
            found[key] = f"{found[key]}, {text}" if key in found else text
    return found
