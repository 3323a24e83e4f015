"""An OpenTelemetry collector: what is posted to it over HTTP, as protobuf's messages."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

__all__ = ["Collector", "attributes", "collector"]


class Collector:
    """``status``: of its answers. ``open``: it answers only while that is set."""

    def __init__(self) -> None:
        self.status = 200
        self.open = threading.Event()
        self.open.set()
        self.asked = threading.Event()
        self.resources: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self._spans: list[Span] = []
        self._changed = threading.Condition()
        self.url = ""

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        with self._changed:
            self.bodies.append(body)
            for found in request.resource_spans:
                self.resources.append(attributes(found.resource))
                self._spans += [span for scope in found.scope_spans for span in scope.spans]
            self._changed.notify_all()

    def spans(self, name: str, count: int = 1) -> list[Span]:
        """Those of that name, once there are so many."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._named(name)) >= count, 60), [s.name for s in self._spans]
            return self._named(name)

    @property
    def names(self) -> list[str]:
        with self._changed:
            return [span.name for span in self._spans]

    def _named(self, name: str) -> list[Span]:
        return [span for span in self._spans if span.name == name]


def attributes(what: Any) -> dict[str, Any]:
    """Of a span or a resource."""
    found = {}
    for one in what.attributes:
        kind = one.value.WhichOneof("value")
        found[one.key] = getattr(one.value, kind)
    return found


@contextmanager
def collector() -> Iterator[Collector]:
    it = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            it.asked.set()
            it.open.wait(60)
            if self.path == "/v1/traces" and it.status == 200:
                it.take(body)
            self.send_response(it.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    it.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield it
    finally:
        it.open.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
