"""Web pages against a daemon on loopback without tokens: pages of other origins, DNS rebinding, forms.

Every kind of page requests every route in the table of rules with every method. No request may be served or have an
effect. Then clients other than pages send requests and must be served.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench import setup
from bench.attack import AttackRow, Scale
from bench.attack.requests import first_frame, request
from streamer.serve.access.rules import RULES

METHODS = ("GET", "POST", "DELETE", "PUT", "PATCH")
EVIL = "evil.example"
FORMS = (
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "text/plain",
    "text/plain;charset=UTF-8",
)
#: Headers of browsers' requests for pages of other origins.
PAGES: tuple[Mapping[str, str], ...] = (
    {"Origin": f"https://{EVIL}"},
    {"Origin": "null"},
    {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
    {"Origin": f"http://{EVIL}", "Sec-Fetch-Site": "cross-site", "Content-Type": "application/json"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
)
NAMES = (EVIL, f"{EVIL}:8765", "localhost.evil.example", "127.0.0.1.nip.io", "a.b", "localhost:1@evil.example", "")
OLD_BROWSER = "Mozilla/5.0 (Windows NT 6.1; rv:60.0) Gecko/20100101 Firefox/60.0"
#: Requests of clients other than pages: a name, the path, a body and its headers.
CLIENTS: tuple[tuple[str, str, bytes, Mapping[str, str]], ...] = (
    ("curl -d", "/v1/streams/c1", bytes(640), {"User-Agent": "curl/8.5.0", "Content-Type": FORMS[0]}),
    ("curl --data-binary", "/v1/streams/c2", b"[]", {"User-Agent": "curl/8.5.0", "Content-Type": "application/json"}),
    ("Influx", "/write", b"m v=1\n", {"User-Agent": "influxdb-client", "Content-Type": "text/plain; charset=utf-8"}),
    ("Telegraf", "/api/v2/write", b"m v=1\n", {"User-Agent": "Telegraf/1.30", "Content-Type": "text/plain"}),
    ("Prometheus", "/api/v1/write", b"", {"User-Agent": "Prometheus/2.53", "Content-Type": "application/x-protobuf"}),
    ("OpenTelemetry", "/v1/metrics", b"", {"User-Agent": "OTel", "Content-Type": "application/x-protobuf"}),
    ("tritonclient", "/v2/models/x/infer", b"{}", {"User-Agent": "Python/3 geventhttpclient"}),
    ("nobody in particular", "/v1/readings", b"x", {}),
)


def run(scale: Scale, model: Path | None = None) -> Iterator[AttackRow]:
    paths = sorted({rule.path.replace("*", "victim") for rule in RULES} | {"/v1/forecast/victim", "/nothing"})
    requests = list(itertools.product(METHODS, paths))
    step = max(1, round(1 / scale.share)) if scale.share < 1 else 1
    with setup.model_path(str(model) if model else None) as path, setup.serving(path) as daemon:
        pages = [(m, p, dict(page)) for m, p in requests for page in PAGES]
        yield refused("pages of other origins", daemon.port, pages[scale.seed % step :: step])
        forms = [
            (m, p, {"User-Agent": OLD_BROWSER, "Content-Type": kind})
            for (m, p), kind in itertools.product(requests, FORMS)
            if m != "GET"
        ]
        yield refused("forms of browsers that send no origin", daemon.port, forms[scale.seed % step :: step])
        rebound = [
            (m, p, {"Host": name, **own})
            for (m, p), name in itertools.product(requests, NAMES)
            for own in ({}, {"Origin": f"http://{name}", "Sec-Fetch-Site": "same-origin"})
        ]
        yield refused("rebound names", daemon.port, rebound[scale.seed % step :: step])

        sockets = [dict(page) for page in PAGES[:4]] + [{"Host": EVIL, "Origin": f"http://{EVIL}"}]
        found = [first_frame(daemon.port, p, page)[0] for p in ("/v1/stream", "/v1/sensors") for page in sockets]
        yield AttackRow(
            "origins",
            "WebSockets of pages: refused",
            "403",
            f"{found.count(403)} of {len(found)}",
            set(found) == {403},
        )
        opened = daemon.value("streamer_sessions_opened_total") + daemon.value("streamer_readings_total")
        yield AttackRow("origins", "streams and readings of these requests", "0", f"{opened:g}", opened == 0)

        answers = {name: request(daemon.port, "POST", p, body, headers) for name, p, body, headers in CLIENTS}
        away = [name for name, answer in answers.items() if answer.status == 403]
        own = {"Origin": f"http://localhost:{daemon.port}", "Host": f"localhost:{daemon.port}"}
        away += [] if request(daemon.port, "GET", "/v1/models", headers=own).status == 200 else ["its own page"]
        away += [] if first_frame(daemon.port, "/v1/stream", {})[0] == 101 else ["a WebSocket without a page"]
        served = f"{len(CLIENTS) + 2 - len(away)} of {len(CLIENTS) + 2}{': not ' + ', '.join(away) if away else ''}"
        yield AttackRow("origins", "clients other than pages: served", "all", served, not away)


def refused(what: str, port: int, requests: list[tuple[str, str, dict[str, str]]]) -> AttackRow:
    """Whether all are refused, with a message that says what to do."""
    let_in = []
    for method, path, headers in requests:
        answer = request(port, method, path, b"" if method == "GET" else b"x=1", headers)
        if answer.status != 403 or not any(word in answer.text for word in ("allowed_", "Content-Type")):
            let_in.append((method, path, headers, answer.status))
    text = f"{len(requests) - len(let_in)} of {len(requests)}" + (f", not {let_in[0]}" if let_in else "")
    return AttackRow("origins", f"{what}: refused", "all, with 403", text, not let_in)
