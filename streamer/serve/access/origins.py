"""Which web pages may use this daemon. A browser takes every page to 127.0.0.1 that asks for it.

Three things a page can do, and what stops each:

- *Another origin's page* sends requests and opens WebSockets. Its browser says so: every browser since 2020 sends
  ``Origin`` with whatever is no ``GET`` and with every WebSocket, and ``Sec-Fetch-Site`` with the rest. A page can't
  change either header. Who sends neither is no page of such a browser, and is believed: curl, Prometheus, Influx's and
  Triton's clients go on as they are, whatever their content type.
- *An older browser's form* has no ``Origin``. It is known by what it calls itself and by the content types of forms.
- *DNS rebinding*: a page of evil.example has its own name lead here, and is same-origin then. Its requests say ``Host:
  evil.example``, so only names are answered that are known to be ours. An IP address is nobody's to rebind.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache

__all__ = ["Origins", "host_name"]

#: Methods that change nothing.
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
#: Characters of a ``Host`` header: a name has 253 at most, and there may be a port.
LONGEST_HOST = 300
NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
#: What a form can send, and what is sent where it says nothing.
FORMS = frozenset({"", "application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})


class Origins:
    """``hosts`` and ``origins``: those that are allowed besides the daemon's own; ``*`` stands for any part."""

    def __init__(self, host: str, hosts: Collection[str] = (), origins: Collection[str] = ()) -> None:
        self._hosts = {"localhost", "*.localhost", *(name.lower() for name in hosts), host.lower()}
        self._origins = {origin.lower().rstrip("/") for origin in origins}
        self._names_us = lru_cache(256)(self._is_host)  # a client says the same with every request

    def host_refusal(self, headers: Mapping[str, str]) -> str | None:
        """Why a request that calls us by this name is not answered; ``None``: it is. ``headers`` by lower-case name."""
        said = headers.get("host")
        if said is None:  # HTTP/1.0: no browser
            return None
        if len(said) <= LONGEST_HOST and self._names_us(said):
            return None
        return f"this daemon is not known as {said[:100]!r}: add the name to the setting allowed_hosts"

    def origin_refusal(self, method: str, headers: Mapping[str, str]) -> str | None:
        """Why a page may not send this; ``None``: it may, or it is no page."""
        origin = headers.get("origin")
        if origin is not None:
            return None if self._is_ours(origin, headers) else _foreign(origin)
        site = headers.get("sec-fetch-site")
        if site is not None:
            visit = method in SAFE and headers.get("sec-fetch-mode") == "navigate"  # somebody followed a link
            return None if site in ("same-origin", "none") or visit else _foreign(f"a {site} page")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        browser = headers.get("user-agent", "").startswith("Mozilla/")
        if method not in SAFE and browser and kind in FORMS:
            return (
                f"a browser's form could send this (no Origin, content type {kind[:60] or 'none'!r}): send"
                " Content-Type: application/json (or application/octet-stream), or a token"
            )
        return None

    def _is_host(self, said: str) -> bool:
        name = host_name(said)
        return name is not None and (_is_address(name) or any(fnmatchcase(name, known) for known in self._hosts))

    def _is_ours(self, origin: str, headers: Mapping[str, str]) -> bool:
        """Of our own pages, or of those that are allowed. The scheme is a proxy's business."""
        origin = origin.lower().rstrip("/")
        if any(fnmatchcase(origin, known) for known in self._origins):
            return True
        scheme, _, place = origin.partition("://")
        return bool(place) and _with_port(place, scheme) == _with_port(headers.get("host", "").lower(), scheme)


def _foreign(who: str) -> str:
    return f"{who[:100]!r} may not use this daemon: add its origin to the setting allowed_origins"


def host_name(said: str) -> str | None:
    """Name or address of a ``Host`` header, in lower case; ``None``: it is none."""
    said = said.strip().lower()
    if said.startswith("["):
        name, closed, rest = said[1:].partition("]")
        if not closed or (rest and not _is_port(rest)):
            return None
        return name if _is_address(name) else None
    name, colon, port = said.partition(":")
    if (colon and not _is_port(":" + port)) or not NAME.fullmatch(name):
        return None
    return name.removesuffix(".")


def _is_port(text: str) -> bool:
    return text == ":" or (text[0] == ":" and text[1:].isdecimal() and len(text) <= 6)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


def _with_port(place: str, scheme: str) -> str:
    """``localhost:80`` out of ``localhost``."""
    bare = place.rpartition("]")[2] if place.startswith("[") else place
    return place if ":" in bare else f"{place}:{443 if scheme == 'https' else 80}"
