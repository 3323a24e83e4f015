"""Which scope a request needs: one table, read from the top; the first line that fits counts.

A request that no line fits needs ``admin``: a route that is missing here is closed, not open.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from streamer.serve.access.tokens import AccessScope

__all__ = ["GRPC", "RULES", "AccessRule", "grpc_scopes", "needed"]

READ = ("GET", "HEAD")
ANY: tuple[str, ...] = ()


class AccessRule(NamedTuple):
    """``path``: one path, or with ``*`` at its end all that begin with it. ``methods``: empty for any. One of the
    ``scopes`` is enough; empty: no token is needed."""

    methods: tuple[str, ...]
    path: str
    scopes: tuple[AccessScope, ...]

    def fits(self, method: str, path: str) -> bool:
        there = path.startswith(self.path[:-1]) if self.path.endswith("*") else path == self.path
        return there and (not self.methods or method in self.methods)


RULES: tuple[AccessRule, ...] = (
    # health: probes have no tokens
    AccessRule(READ, "/", ()),
    # pages in a browser, which can send a token only once it has loaded them: their data has rules of its own
    AccessRule(READ, "/forecasts", ()),
    AccessRule(READ, "/engine", ()),
    AccessRule(READ, "/pages/*", ()),
    AccessRule(READ, "/healthz", ()),
    AccessRule(READ, "/readyz", ()),
    AccessRule(READ, "/health", ()),
    AccessRule(ANY, "/ping", ()),
    AccessRule(READ, "/v2/health/*", ()),
    AccessRule(READ, "/openapi.json", ()),
    AccessRule(READ, "/asyncapi.json", ()),
    # the daemon's description of itself
    AccessRule(READ, "/metrics", ("read",)),
    AccessRule(READ, "/v1/engine", ("read",)),
    AccessRule(READ, "/v1/models", ("read", "stream")),
    AccessRule(READ, "/v1/models/*", ("read", "stream")),
    AccessRule(READ, "/v2", ("read", "stream")),
    AccessRule(READ, "/v2/*", ("read", "stream")),
    AccessRule(ANY, "/v2/repository/index", ("read", "stream")),
    # streams
    AccessRule(ANY, "/v1/stream", ("stream",)),
    AccessRule(ANY, "/v1/streams/*", ("stream",)),
    AccessRule(ANY, "/v1/generate", ("stream",)),
    AccessRule(ANY, "/v1/audio/transcriptions", ("stream",)),
    AccessRule(ANY, "/v1/realtime", ("stream",)),
    AccessRule(ANY, "/v2/models/*", ("stream",)),
    # sensors
    AccessRule(ANY, "/v1/sensors", ("read", "write")),  # subscribe.py checks each frame
    AccessRule(READ, "/v1/forecast", ("read",)),
    AccessRule(READ, "/v1/forecast/*", ("read",)),
    AccessRule(READ, "/v1/sensor-list", ("read",)),
    AccessRule(READ, "/v1/history/*", ("read",)),
    AccessRule(("DELETE",), "/v1/forecast/*", ("write",)),
    AccessRule(ANY, "/v1/readings", ("write",)),
    AccessRule(ANY, "/api/v2/write", ("write",)),
    AccessRule(ANY, "/write", ("write",)),
    AccessRule(ANY, "/query", ("write", "read")),
    AccessRule(ANY, "/api/v1/write", ("write",)),
    AccessRule(ANY, "/v1/metrics", ("write",)),
    # streams of all owners
    AccessRule(ANY, "/v1/sessions*", ("admin",)),
    AccessRule(ANY, "/v1/sensor-states/*", ("admin",)),
    AccessRule(ANY, "/v1/drain", ("admin",)),
    AccessRule(ANY, "/v1/reload", ("admin",)),
)

#: The same for methods of gRPC.
GRPC: dict[str, tuple[AccessScope, ...]] = {
    "ServerLive": (),
    "ServerReady": (),
    "ServerMetadata": ("read", "stream"),
    "ModelReady": ("read", "stream"),
    "ModelMetadata": ("read", "stream"),
    "ModelConfig": ("read", "stream"),
    "ModelStatistics": ("read", "stream"),
    "RepositoryIndex": ("read", "stream"),
    "ModelInfer": ("stream",),
    "ModelStreamInfer": ("stream",),
}


def needed(method: str, path: str, rules: Sequence[AccessRule] = RULES) -> tuple[AccessScope, ...]:
    """The scopes of which a request needs one; empty: no token is needed."""
    return next((rule.scopes for rule in rules if rule.fits(method, path)), ("admin",))


def grpc_scopes(method: str) -> tuple[AccessScope, ...]:
    return GRPC.get(method, ("admin",))
