"""Which requests are admitted: one layer in front of all routes, of HTTP, WebSocket and gRPC alike.

It decides before a request's body is read, so that a refusal costs little. The rules are a table
(:mod:`streamer.serve.access.rules`); handlers know only which owner's streams they may touch (:class:`Grant`).
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from streamer.serve.access.grant import ANYONE, Denied, Grant
from streamer.serve.access.limits import Guesses
from streamer.serve.access.origins import Origins
from streamer.serve.access.rules import needed
from streamer.serve.access.tokens import AccessScope, TokenFile, TokenFileError, digest, token_path
from streamer.serve.headers import headers_of

if TYPE_CHECKING:
    from streamer.metrics import Metrics
    from streamer.settings import Settings

__all__ = ["SUBPROTOCOL", "Access", "Gate"]

log = logging.getLogger(__name__)

#: A browser can't set headers of a WebSocket. It offers two subprotocols, this one and ``streamer.token.TOKEN``; the
#: daemon accepts this one, so its answer never holds the token.
SUBPROTOCOL = "streamer"
TOKEN_PROTOCOL = "streamer.token."
#: The same of OpenAI's clients in a browser.
OPENAI_PROTOCOL = "openai-insecure-api-key."


class Access:
    """Who may do what, now. :meth:`reload` may be called from a thread, everything else on the event loop.

    Requests need a token once there is a file of tokens (``required``), and from then on as long as the daemon runs: if
    the file is emptied or deleted, no client is admitted.
    """

    def __init__(self, settings: Settings, metrics: Metrics, clock: Callable[[], float] = monotonic) -> None:
        self.file, self._metrics, self._clock = TokenFile(token_path(settings)), metrics, clock
        self._origins = Origins(settings.host, settings.allowed_hosts, settings.allowed_origins)
        most, addresses = settings.max_failed_tokens, settings.max_failed_addresses
        self._guesses = Guesses(most, settings.failed_token_seconds, addresses, clock)
        self._grants: dict[str, Grant] = {}  # by the token's hash; replaced, never changed
        self._stamp: tuple[int, int, int] | None = None
        self.required = False
        metrics.tokens.set_function(lambda: len(self._grants))

    # -- the file ----------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Read the file. Waits for the disk. Raises :class:`TokenFileError`."""
        stamp = self.file.stamp()
        tokens = self.file.read()
        before = self._grants
        kept = {t.sha256: before[t.sha256] for t in tokens if t.sha256 in before and before[t.sha256].token == t}
        self._grants = {t.sha256: kept.get(t.sha256) or Grant(t, self._clock) for t in tokens}
        for sha256, grant in before.items():
            grant.revoked = kept.get(sha256) is not grant
        self._stamp = stamp
        self.required = self.required or stamp is not None

    def reload(self, *, always: bool = False) -> None:
        """Read the file again if it has changed, or ``always``. If it can't be read, that is logged, and the known
        tokens stay. Waits for the disk."""
        if self.file.stamp() == self._stamp and not always:
            return
        try:
            self.load()
        except TokenFileError as error:
            self._stamp = self.file.stamp()  # complain once
            log.error("tokens not reloaded", extra={"reason": str(error)})
            return
        log.warning("tokens reloaded", extra={"tokens": len(self._grants)})

    def max_streams(self, owner: str) -> int | None:
        """The largest ``max_streams`` of the owner's tokens; ``None``: no bound."""
        bounds = [grant.max_streams for grant in self._grants.values() if grant.owner == owner]
        known = [bound for bound in bounds if bound is not None]
        return max(known) if known and len(known) == len(bounds) else None

    # -- requests ----------------------------------------------------------------------------------------------------

    def admit(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        address: str,
        protocols: Sequence[str] = (),
    ) -> Grant:
        """The grant of a request. ``headers`` by lower-case name. ``protocols``: those that a WebSocket offers. Raises
        :class:`Denied`."""
        try:
            secret = _secret(headers.get("authorization", ""), protocols)
            grant = self._grant(secret, needed(method, path) if self.required else (), address)
            if grant.token is None and (why := self._origins.host_refusal(headers)):
                raise Denied(403, "host", why)  # with a token any host name is accepted: a foreign page can't send one
            if why := self._origins.origin_refusal(method, headers):
                raise Denied(403, "origin", why)
            grant.request()
        except Denied as denied:
            self.count(denied)
            raise
        return grant

    def admit_grpc(self, scopes: Sequence[AccessScope], metadata: Mapping[str, str], address: str) -> Grant:
        """The grant of a gRPC call. Pages are no danger here: a browser would need a preflight first, which the gRPC
        port never answers. Raises :class:`Denied`."""
        try:
            grant = self._grant(_secret(metadata.get("authorization", ""), ()), scopes, address)
            grant.request()
        except Denied as denied:
            self.count(denied)
            raise
        return grant

    def count(self, denied: Denied) -> None:
        self._metrics.denied.labels(denied.reason).inc()

    def _grant(self, secret: str, scopes: Sequence[AccessScope], address: str) -> Grant:
        if not self.required or (not scopes and not secret):
            return ANYONE
        if not secret:
            text = (
                "a token is needed: Authorization: Bearer TOKEN (--token, STREAMER_TOKEN; streamer token add makes one)"
            )
            raise Denied(401, "token", text)
        sha256 = digest(secret)
        if wait := self._guesses.wait(address, sha256):
            raise Denied(429, "guess", "too many wrong tokens came from your address: wait", wait)
        grant = self._grants.get(sha256)
        if grant is None:
            self._guesses.was_wrong(address)
            log.info("a wrong token", extra={"address": address})
            raise Denied(401, "token", "this token is not known here: streamer token list shows those that are")
        self._guesses.was_right(address, sha256)
        if not grant.may(*scopes):
            raise Denied(403, "scope", f"this token may not do that: it needs the scope {' or '.join(scopes)}")
        return grant


def _secret(authorization: str, protocols: Sequence[str]) -> str:
    """The token in ``Bearer TOKEN``, in Influx's ``Token TOKEN``, or in ``Basic`` as the password."""
    kind, _, rest = authorization.strip().partition(" ")
    rest = rest.strip()
    if kind.lower() in ("bearer", "token"):
        return rest
    if kind.lower() == "basic":
        try:
            return base64.b64decode(rest, validate=True).decode("utf-8", "replace").partition(":")[2]
        except (binascii.Error, ValueError):
            return rest
    known = (TOKEN_PROTOCOL, OPENAI_PROTOCOL)
    return next((p.removeprefix(k) for p in protocols for k in known if p.startswith(k)), "")


class Gate:
    """An ASGI application in front of ``app``. The body of a refused request is read and dropped: a client that is
    still sending would not see the answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = headers_of(scope)
        address = (scope.get("client") or ("", 0))[0]
        try:
            grant = self._access.admit(scope["method"], scope["path"], headers, address)
        except Denied as denied:
            while (message := await receive())["type"] == "http.request" and message.get("more_body"):
                pass
            await JSONResponse({"error": denied.message}, denied.status, denied.headers)(scope, receive, send)
            return
        scope["grant"] = grant
        await self._app(scope, grant.metered(receive), send)
