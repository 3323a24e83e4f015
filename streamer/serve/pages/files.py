"""The files of the pages: read once, with their types, a digest each, and packed for the network.

What a browser may do with them stands in :data:`HEADERS`: nothing comes from another place, no script and no style
stands in a document, and no other page may frame them.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response

__all__ = ["HEADERS", "PageFile", "page_files"]

TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
#: ``trusted-types`` of a document: a text can't become markup, whatever a script does with it. Not where the chart
#: library writes its own.
STRICT = "; require-trusted-types-for 'script'; trusted-types 'none'"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cache-Control": "no-cache",  # a browser asks each time, and gets 304: an upgrade is never half old
    "Vary": "Accept, Accept-Encoding",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    body: bytes
    packed: bytes
    etag: str
    media_type: str
    policy: str

    @classmethod
    def of(cls, name: str, body: bytes, *, strict: bool = True) -> PageFile:
        """``name``: its end says the type. Packing takes a moment for a large file: call it in a thread."""
        policy = POLICY + (STRICT if strict else "")
        digest = sha256(body).hexdigest()[:32]
        return cls(body, gzip.compress(body, 9, mtime=0), digest, TYPES[name.rpartition(".")[2]], policy)

    def answer(self, request: Request) -> Response:
        headers = HEADERS | {"Content-Security-Policy": self.policy}
        packed = _takes_gzip(request.headers.get("accept-encoding", ""))
        headers["ETag"] = etag = f'"{self.etag}{"-gzip" if packed else ""}"'
        if etag in map(str.strip, request.headers.get("if-none-match", "").replace("W/", "").split(",")):
            return Response(status_code=304, headers=headers)
        if packed:
            headers["Content-Encoding"] = "gzip"
        return Response(self.packed if packed else self.body, media_type=self.media_type, headers=headers)


def _takes_gzip(accepted: str) -> bool:
    """By the header ``Accept-Encoding`` (RFC 9110, 12.5.3): what is named itself counts before ``*``, and weight 0 is
    a no."""
    weights: dict[str, bool] = {}
    for part in accepted.lower().split(","):
        coding, *parameters = map(str.strip, part.split(";"))
        named = {name.strip(): value.strip() for name, _, value in (each.partition("=") for each in parameters)}
        weights[coding] = named.get("q", "1").strip("0.") != ""
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", False)))


def page_files() -> dict[str, PageFile]:
    """All that the package ships, by name."""
    folder = resources.files("streamer.serve.pages") / "static"
    found = {each.name: each.read_bytes() for each in folder.iterdir() if each.name.rpartition(".")[2] in TYPES}
    return {name: PageFile.of(name, body, strict=name != "forecasts.html") for name, body in found.items()}
