"""The OpenAPI document is complete, and a real daemon keeps to it (schemathesis asks)."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator
from schemathesis import CheckContext, GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from streamer.engine.catalogue import resolve
from streamer.serve.access.rules import needed
from streamer.serve.documents import operations
from streamer.serve.documents.openapi import BESIDE, openapi, paths
from streamer.serve.documents.operations import OPERATIONS
from streamer.serve.kserve.infer_http import INFER_PATH
from streamer.serve.rows.routes import PREFIX
from tests.daemon.running import Running, daemon
from tests.engine.support import running
from tests.rows import row_model
from tests.serve.in_process import router
from tests.serve.kserve.plant import plant
from tests.toys import toy_model

#: Another daemon would have to be there, and this one would be empty behind it; `test_moving.py` does it.
NOT_ASKED = {("POST", "/v1/drain")}
#: Requests of each kind to a route in the long test; $STREAMER_EXAMPLES asks for more.
EXAMPLES = int(os.environ.get("STREAMER_EXAMPLES", "40"))


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("document")
    with running(plant(folder), folder=folder) as registry:

        async def go() -> dict[str, Any]:
            app = router(registry)
            assert set(paths(app.routes)) | set(BESIDE) == set(OPERATIONS), "streamer/serve/documents/operations.py"
            return openapi(app.routes)

        return asyncio.run(go())


def test_every_route_is_documented_and_nothing_else(document: dict[str, Any]) -> None:
    there = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert there == set(OPERATIONS)
    for method, path in BESIDE:  # which no router lists
        filled = path.replace("{key}", "x").replace("{model}", "x").replace("{version}", "x")
        assert method == "POST"
        assert filled.startswith(PREFIX) or INFER_PATH.fullmatch(filled)


def test_the_scopes_are_those_of_the_table(document: dict[str, Any]) -> None:
    for method, path in OPERATIONS:
        said = document["paths"][path][method.lower()]
        scopes = needed(method, path.replace("{", "").replace("}", ""))
        assert said["security"] == ([{}, {"token": []}] if scopes else [{}])
        assert not scopes or f"the scope {' or '.join(scopes)}" in said["description"]
        assert ("401" in said["responses"]) == bool(scopes)


def test_every_schema_is_one_and_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    text = json.dumps(document)
    for name in document["components"]["schemas"]:
        assert f'"#/components/schemas/{name}"' in text
    for reference in text.split('"$ref": "')[1:]:
        assert reference.partition('"')[0].rpartition("/")[2] in document["components"]["schemas"]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A daemon with a transcriber, a model of rows and a forecaster, and room for all that comes."""
    folder = tmp_path_factory.mktemp("asked")
    models = toy_model(folder), row_model(folder / "rows.onnx"), resolve("forecast-universal")
    with daemon(folder / "daemon", *models, capacity=256, checkpoint_seconds=0.2) as started:
        yield started


@pytest.fixture(scope="module")
def schema(asked: Running) -> Any:
    status, text = asked.get("/openapi.json")
    assert status == 200
    found = schemathesis.openapi.from_dict(json.loads(text))
    found.config.update(base_url=f"http://127.0.0.1:{asked.port}")
    return found


EVERY = sorted(set(OPERATIONS) - NOT_ASKED)
#: Where there is something that can be wrong: a query, or a body that is more than bytes.
WRONG = [
    each
    for each in EVERY
    if OPERATIONS[each].query or any(kind != operations.RAW for kind in OPERATIONS[each].body.values())
]


@schemathesis.serializer("application/x-protobuf")
def serialized(context: Any, value: Any) -> bytes:
    """Bytes as they are: what is drawn is no message, nor packed."""
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


def ask(schema: Any, method: str, path: str, mode: GenerationMode, examples: int) -> None:
    """``examples`` requests that keep to the document, or break it: the answers keep to it."""
    operation = schema[path][method]

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def keeps(case: Any) -> None:
        case.call_and_validate(checks=[no_failure, status_code_conformance, content_type_conformance,
                                       response_schema_conformance])  # fmt: skip

    keeps()


def no_failure(context: CheckContext, response: Any, case: Any) -> None:
    """500 is a defect, whatever was asked; the others of five hundred are documented where they may be."""
    assert response.status_code != 500, response.text


@pytest.mark.parametrize(("method", "path"), EVERY)
def test_the_daemon_keeps_to_the_document(schema: Any, method: str, path: str) -> None:
    ask(schema, method, path, GenerationMode.POSITIVE, 5)


@pytest.mark.parametrize(("method", "path"), WRONG)
def test_nonsense_is_refused_as_documented(schema: Any, method: str, path: str) -> None:
    ask(schema, method, path, GenerationMode.NEGATIVE, 5)


def test_what_no_route_takes_is_refused_in_the_same_form(asked: Running) -> None:
    for method, path, status, said in (
        ("GET", "/v1/nothing", 404, "GET / says what is where"),
        ("DELETE", "/v1/streams/a%0Ab", 404, "GET / says what is where"),  # no name has a line end
        ("DELETE", "/v1/readings", 405, "POST is"),
    ):
        answer = asked.ask(method, path)
        assert answer.status == status
        assert said in json.loads(answer.text)["error"]


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("method", "path"), EVERY)
@pytest.mark.soak
def test_for_long(schema: Any, method: str, path: str) -> None:
    ask(schema, method, path, GenerationMode.POSITIVE, EXAMPLES)
    if (method, path) in WRONG:
        ask(schema, method, path, GenerationMode.NEGATIVE, EXAMPLES)
