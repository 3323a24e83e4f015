"""A client of another daemon, for this daemon and for the command line."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, urlsplit

from streamer.client.connection import tls_trouble
from streamer.streams.moving import PeerError

__all__ = ["Peer", "PeerError"]


class Peer:
    """``url``: ``http(s)://HOST:PORT``. ``token``: sent as a bearer token. ``ca``: certificates to trust (PEM), else
    the system's. Every method raises :class:`PeerError`."""

    def __init__(self, url: str, token: str | None = None, seconds: float = 30.0, ca: Path | None = None) -> None:
        url = url.replace("ws://", "http://", 1).replace("wss://", "https://", 1).rstrip("/")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path or parts.query:
            raise PeerError(f"{url!r} is not the address of a daemon: http://HOST:PORT is expected")
        self.url, self._parts, self._seconds, self._ca = url, parts, seconds, ca
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        **query: str,
    ) -> bytes:
        """Send a request and return the answer's body. A status of 400 and above raises."""
        asked = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
        try:
            connection = self._connection()
            try:
                connection.request(
                    method, f"{path}?{asked}" if asked else path, body, {**self._headers, **(headers or {})}
                )
                answer = connection.getresponse()
                found = answer.read()
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            advice = tls_trouble(error, self.url)
            trouble = PeerError(advice or f"{self.url} can't be reached: {error or type(error).__name__}")
            trouble.reached = advice is not None
            raise trouble from error
        if answer.status >= 300:
            reason = _reason(found)
            raise PeerError(f"{self.url} answered {answer.status}: {reason}", answer.status, reason)
        return found

    def bring(self, id: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Bring a stream to the other daemon, which writes it to its disk."""
        self.ask("PUT", f"/v1/sessions/{quote(id)}", data, headers)

    def bring_sensor(self, name: str, model: str, data: bytes) -> None:
        self.ask("PUT", f"/v1/sensor-states/{quote(name)}", data, model=model)

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname, self._parts.port
        assert host is not None  # checked above
        if self._parts.scheme == "https":
            context = ssl.create_default_context(cafile=self._ca)
            return http.client.HTTPSConnection(host, port, timeout=self._seconds, context=context)
        return http.client.HTTPConnection(host, port, timeout=self._seconds)


def _reason(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace").strip()
