"""Names, paths, headers and bodies that try to forge log records, or to send control characters to a terminal."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from bench import setup
from bench.attack import AttackRow, Scale
from bench.attack.requests import bearer, first_frame, request

FORGED = "12:00:00.000 error   forged by an attacker"
TEXTS = (
    f"x\n{FORGED}",
    f"x\r\n{FORGED}",
    f"x\u2028{FORGED}",
    f"x\x85{FORGED}",
    "\x1b[2J\x1b]0;title\x07",
    "\x9b31m",
    "\u202egnp.exe",
    "\x00\x07\x08\x7f",
    "x  level=error  stream=forged",
    'x","level":"error","event":"forged',
    "\ud800",
    "\U000e0041\U0001f600",
)
RECORD = re.compile(r"\d\d:\d\d:\d\d\.\d\d\d (debug|info|warning|error|critical) +\S")


def run(scale: Scale, model: Path | None = None) -> Iterator[AttackRow]:
    texts = TEXTS if scale.share >= 1 else TEXTS[: max(6, round(len(TEXTS) * scale.share * 4))]
    for style in ("console", "json"):
        with (
            tempfile.TemporaryDirectory() as folder,
            setup.model_path(str(model) if model else None) as path,
        ):
            log = Path(folder) / "log"
            with log.open("wb") as file, setup.serving(path, log=file, **settings(style)) as daemon:
                count = sum(attack(daemon.port, text) for text in texts)
            yield from judged(style, log.read_bytes(), count)


def settings(style: str) -> dict[str, str]:
    return {"STREAMER_LOG_LEVEL": "debug", "STREAMER_LOG_FORMAT": style}


def attack(port: int, text: str) -> int:
    """Send ``text`` in every part of requests that is logged; returns the number of requests."""
    plain = text.encode("utf-8", "surrogatepass")
    header = plain.replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b"").decode("latin-1")
    name = quote(plain, safe="")
    frames: list[dict[str, object]] = [
        {"type": "start", "model": text[:200]},
        {"type": "start", "key": text},
        {"type": "resume", "stream": text},
        {"type": text},
        {"type": "start", "options": {text: text}},
        {"type": "start", "key": "k", "options": {"decoder": text}},
    ]
    for frame in frames:
        first_frame(port, "/v1/stream", {}, frame)
    first_frame(port, "/v1/stream", {}, {"type": "start"}, b"odd")
    for method, path in (
        ("POST", f"/v1/streams/{name}?model={name}"),
        ("POST", f"/v1/streams/{name}"),
        ("DELETE", f"/v1/streams/{name}"),
        ("GET", f"/{name}"),
        ("POST", f"/v2/models/{name}/infer"),
        ("POST", f"/write?precision={name}"),
        ("POST", f"/v1/readings?model={name}"),
    ):
        request(port, method, path, plain)
    for field in (
        "Host",
        "Origin",
        "User-Agent",
        "Content-Type",
        "Content-Encoding",
        "Authorization",
        "streamer-client",
    ):
        request(port, "POST", "/v1/streams/h", b"[]", {field: header})
    request(port, "GET", "/v1/models", headers=bearer(header))
    return len(frames) + 16


def judged(style: str, log: bytes, count: int) -> Iterator[AttackRow]:
    text = log.decode("utf-8", "replace")
    lines = text.removesuffix("\n").split("\n")
    bad = [line for line in lines if not line.isprintable() or "\ufffd" in line]
    found = f"{len(bad)} of {len(lines)}" + (f", {bad[0][:100]!a}" if bad else "")
    yield AttackRow("logs", f"{style}: lines with unprintable characters, of {count} requests", "0", found, not bad)
    forged = [line for line in lines if not _is_record(style, line)]
    found = f"{len(forged)}" + (f", {forged[0][:100]!a}" if forged else "")
    yield AttackRow("logs", f"{style}: forged lines", "0", found, not forged and len(lines) > 3)


def _is_record(style: str, line: str) -> bool:
    if style == "console":  # a traceback is indented
        return (RECORD.match(line) is not None and FORGED[13:] not in line[:60]) or line.startswith("    ")
    try:
        found = json.loads(line)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("event") != "forged" and {"time", "level", "logger"} <= found.keys()
