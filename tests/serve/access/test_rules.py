"""Every route has its line in the table, and what has none is closed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from starlette.routing import BaseRoute, Mount, Route

from streamer.serve.access.rules import GRPC, RULES, grpc_scopes, needed
from streamer.serve.kserve.grpc_server import UNSERVED
from tests.engine.support import running
from tests.serve.in_process import router
from tests.serve.kserve.plant import plant

PAGES = {"/", "/forecasts", "/engine", "/pages/charts.json", "/pages/x"}
PROBES = {"/healthz", "/readyz", "/health", "/ping", "/v2/health/live", "/v2/health/ready"}
PUBLIC = PAGES | PROBES | {"/openapi.json", "/asyncapi.json"}


def paths(routes: list[BaseRoute], before: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for route in routes:
        if isinstance(route, Mount):
            found += paths(route.routes, before + route.path)
        elif isinstance(route, Route) and "{rest:path}" not in route.path:
            path = before + route.path
            for hole in ("{key:path}", "{stream:path}", "{name:path}", "{id:path}", "{model}", "{version}", "{file}"):
                path = path.replace(hole, "x")
            found += [(method, path) for method in route.methods or ()]
    return found


def test_every_route_has_a_line(tmp_path: Path) -> None:
    with running(plant(tmp_path), folder=tmp_path) as registry:

        async def go() -> list[tuple[str, str]]:
            return paths(router(registry).routes)

        found = asyncio.run(go())
    assert len(found) > 30
    assert [each for each in found if "{" in each[1]] == []
    unnamed = [each for each in found if not any(rule.fits(*each) for rule in RULES)]
    assert unnamed == [], "add them to streamer/serve/access/rules.py"
    assert {path for method, path in found if not needed(method, path)} == PUBLIC


@pytest.mark.parametrize("path", ["/x", "/v1", "/v1/streamsx", "/v1/forecastx", "/metrics/", "//metrics", "/v2x", ""])
def test_what_has_no_line_is_closed(path: str) -> None:
    assert needed("GET", path) == ("admin",)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "get", ""])
def test_no_method_opens_what_reading_opens(method: str) -> None:
    for rule in RULES:
        if rule.methods and "DELETE" not in rule.methods:
            scopes = needed(method, rule.path.replace("*", "x"))
            assert scopes
            assert not set(scopes) & {"read"} or rule.path == "/query"


def test_methods_of_grpc() -> None:
    assert grpc_scopes("ModelInfer") == grpc_scopes("ModelStreamInfer") == ("stream",)
    assert {name for name, scopes in GRPC.items() if not scopes} == {"ServerLive", "ServerReady"}
    for name in (*UNSERVED, "What", ""):
        assert grpc_scopes(name) == ("admin",)
