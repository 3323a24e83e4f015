import json

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from streamer.metrics import Metrics
from tests.daemon.running import Running


def test_pages(served: Running) -> None:
    assert served.get("/healthz") == (200, "ok\n")
    assert served.get("/readyz") == (200, "ready\n")
    assert "/v1/stream" in served.get("/")[1]
    assert served.get("/nothing")[0] == 404
    for path in ("/v1/stream", "/v1/sensors", "/v1/realtime"):
        status, text = served.get(path)
        assert status == 426
        assert f"'{path}' is a WebSocket: connect to ws://HOST:PORT{path}" in text


def test_models(served: Running) -> None:
    status, body = served.get("/v1/models")
    (model,) = json.loads(body)["models"]
    assert status == 200
    assert (model["name"], model["sample_rate"]) == ("toy", 8000)


def test_metrics_page_parses_and_holds_the_promised_names(served: Running) -> None:
    registered = list(Metrics().registry.collect())
    plain = {family.name for family in parse(served.get("/metrics")[1])}
    assert {m.name + ("_info" if m.type == "info" else "") for m in registered} <= plain
    page = served.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")[1]
    assert page.endswith("# EOF\n")
    assert {m.name for m in registered} <= {family.name for family in parse_openmetrics(page)}
