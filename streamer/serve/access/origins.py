"""Which web pages may use this daemon. A browser lets every page send requests to 127.0.0.1.

Three things that a page can do, and what stops each:

- *A page of another origin* sends requests and opens WebSockets. The headers show it: every browser since 2020 sends
  ``Origin`` with every WebSocket and every method but ``GET``, and ``Sec-Fetch-Site`` with the rest. A page can't
  change either header. A request with neither header is not from a page of such a browser, and is trusted: curl,
  Prometheus, Influx's and Triton's clients need no change, whatever their content type.
- *A form in an older browser* has no ``Origin``. The browser's ``User-Agent`` and the content types of forms show it.
- *DNS rebinding*: the name of a page of evil.example resolves to this machine, and the page is same-origin then. Its
  requests have ``Host: evil.example``, so only known names are answered. An IP address can't be rebound.
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
#: Content types that a form can send, and the empty one of a request without a type.
FORMS = frozenset({"", "application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})


class Origins:
    """``hosts`` and ``origins``: those that are allowed besides the daemon's own; ``*`` stands for any part."""

    def __init__(self, host: str, hosts: Collection[str] = (), origins: Collection[str] = ()) -> None:
        self._hosts = {"localhost", "*.localhost", *(name.lower() for name in hosts), host.lower()}
        self._origins = {origin.lower().rstrip("/") for origin in origins}
        self._names_us = lru_cache(256)(self._is_host)  # a client sends the same name with every request

    def host_refusal(self, headers: Mapping[str, str]) -> str | None:
        """Why a request with this ``Host`` is refused; ``None``: it is not. ``headers`` by lower-case name."""
        host = headers.get("host")
        if host is None:  # HTTP/1.0: no browser
            return None
        if len(host) <= LONGEST_HOST and self._names_us(host):
            return None
        return f"this daemon is not known as {host[:100]!r}: add the name to the setting allowed_hosts"

    def origin_refusal(self, method: str, headers: Mapping[str, str]) -> str | None:
        """Why the page that sends this may not; ``None``: it may, or no page sends it."""
        origin = headers.get("origin")
        if origin is not None:
            return None if self._is_ours(origin, headers) else _foreign(origin)
        site = headers.get("sec-fetch-site")
        if site is not None:
            visit = method in SAFE and headers.get("sec-fetch-mode") == "navigate"  # the user followed a link
            return None if site in ("same-origin", "none") or visit else _foreign(f"a {site} page")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        browser = headers.get("user-agent", "").startswith("Mozilla/")
        if method not in SAFE and browser and kind in FORMS:
            return (
                f"a browser's form could send this (no Origin, content type {kind[:60] or 'none'!r}): send"
                " Content-Type: application/json (or application/octet-stream), or a token"
            )
        return None

    def _is_host(self, host: str) -> bool:
        name = host_name(host)
        return name is not None and (_is_address(name) or any(fnmatchcase(name, known) for known in self._hosts))

    def _is_ours(self, origin: str, headers: Mapping[str, str]) -> bool:
        """Whether the origin is the daemon's own or an allowed one. The scheme is not compared: proxies change it."""
        origin = origin.lower().rstrip("/")
        if any(fnmatchcase(origin, known) for known in self._origins):
            return True
        scheme, _, place = origin.partition("://")
        return bool(place) and _with_port(place, scheme) == _with_port(headers.get("host", "").lower(), scheme)


def _foreign(who: str) -> str:
    return f"{who[:100]!r} may not use this daemon: add its origin to the setting allowed_origins"


def host_name(header: str) -> str | None:
    """Name or address in a ``Host`` header, in lower case; ``None``: the header is invalid."""
    header = header.strip().lower()
    if header.startswith("["):
        name, closed, rest = header[1:].partition("]")
        if not closed or (rest and not _is_port(rest)):
            return None
        return name if _is_address(name) else None
    name, colon, port = header.partition(":")
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
