"""The files of the pages: read once, each with its type, a digest, and a gzipped copy.

:data:`HEADERS` says what a browser may do with them: load nothing from elsewhere, run no script and no style in a
document, and let no other page frame them.
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
#: ``trusted-types`` of a document: no script can turn text into markup. Documents with the chart library, which writes
#: markup, do without.
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
    "Cache-Control": "no-cache",  # a browser asks each time, and gets 304: pages never mix files of two versions
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
        """Make the file of a body. ``name``: its suffix gives the type. Packing a large file takes a moment: call it in
        a thread."""
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
    """Whether a client takes gzip, by its header ``Accept-Encoding`` (RFC 9110, 12.5.3): an entry for gzip counts
    before ``*``, and a weight of 0 means no."""
    weights: dict[str, bool] = {}
    for part in accepted.lower().split(","):
        coding, *parameters = map(str.strip, part.split(";"))
        named = {name.strip(): value.strip() for name, _, value in (each.partition("=") for each in parameters)}
        weights[coding] = named.get("q", "1").strip("0.") != ""
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", False)))


def page_files() -> dict[str, PageFile]:
    """All files of the pages in the package, by name."""
    folder = resources.files("streamer.serve.pages") / "static"
    found = {each.name: each.read_bytes() for each in folder.iterdir() if each.name.rpartition(".")[2] in TYPES}
    return {name: PageFile.of(name, body, strict=name != "forecasts.html") for name, body in found.items()}
