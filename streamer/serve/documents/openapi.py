"""The OpenAPI document: the router's routes, their scopes, requests and answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any

from starlette.routing import BaseRoute, Mount, Route

from streamer import __version__
from streamer.serve.access.rules import needed
from streamer.serve.documents.answers import ErrorAnswer
from streamer.serve.documents.components import Components, JsonSchema
from streamer.serve.documents.events import stream_events
from streamer.serve.documents.operations import FORM, OPERATIONS, Operation

__all__ = ["BESIDE", "openapi", "paths"]

#: Routes in front of the router: the router would cost as much as the rest of their answers.
BESIDE = (
    ("POST", "/v1/streams/{key}"),
    ("POST", "/v2/models/{model}/infer"),
    ("POST", "/v2/models/{model}/versions/{version}/infer"),
)
#: A path parameter that holds the rest of the path: for routes that are not served.
REST = "{rest}"
HOLE = re.compile(r"\{(\w+)(?::\w+)?\}")
#: Schemas of path parameters.
PARTS: dict[str, JsonSchema] = {
    "key": {"type": "string", "minLength": 1, "maxLength": 200, "description": "the name of a stream"},
    "id": {"type": "string", "minLength": 1, "description": "the id or the key of a stream"},
    "stream": {"type": "string", "minLength": 1, "description": "the name of a sensor"},
    "name": {"type": "string", "minLength": 1, "description": "a name"},
    "model": {"type": "string", "minLength": 1, "description": "the name of a model"},
    "version": {"type": "string", "minLength": 1, "description": "the version of a model"},
    "file": {"type": "string", "minLength": 1, "description": "the name of a file"},
}
#: Statuses of every route that is not public.
DENIED = (401, 403, 429)


def paths(routes: Iterable[BaseRoute], before: str = "") -> Iterator[tuple[str, str]]:
    """Methods and paths of a router, as the document has them. HEAD, which is GET without a body, and the routes that
    are not served are left out."""
    for route in routes:
        if isinstance(route, Mount):
            yield from paths(route.routes, before + route.path)
        elif isinstance(route, Route):
            path = HOLE.sub(r"{\1}", before + route.path)
            for method in sorted((route.methods or set()) - {"HEAD"}):
                if REST not in path:
                    yield method, path


def openapi(routes: Iterable[BaseRoute]) -> dict[str, Any]:
    """OpenAPI 3.1, JSON-ready. A route that :data:`OPERATIONS` does not name is left out."""
    components = Components()
    components.schemas["StreamAnswer"] = _streamed(stream_events(components))
    found: dict[str, dict[str, Any]] = {}
    for method, path in (*paths(routes), *BESIDE):
        if (operation := OPERATIONS.get((method, path))) is not None:
            found.setdefault(path, {})[method.lower()] = _operation(method, path, operation, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "streamer",
            "version": __version__,
            "description": "Stateful streaming inference. The WebSockets are in /asyncapi.json; KServe's gRPC,"
            " Vosk's and Wyoming's protocols have ports of their own.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": dict(sorted(found.items())),
        "components": {
            "schemas": components.schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _streamed(events: list[JsonSchema]) -> JsonSchema:
    """The answer to rows: the stream's position, and its events; the field ``type`` distinguishes them."""
    place: JsonSchema = {name: {"type": "string"} for name in ("stream", "model")} | {"resumed": {"type": "boolean"}}
    place |= {name: {"type": "integer", "minimum": 0} for name in ("position", "acknowledged")}
    listed = {"events": {"type": "array", "items": {"anyOf": events}}}
    return {"type": "object", "properties": place | listed, "required": [*place, "events"]}


def _operation(method: str, path: str, operation: Operation, components: Components) -> dict[str, Any]:
    scopes = needed(method, HOLE.sub("x", path))
    made: dict[str, Any] = {
        "tags": [operation.tag],
        "summary": operation.summary,
        "operationId": f"{method.lower()}{re.sub(r'[^A-Za-z0-9]+', '_', path)}".rstrip("_"),
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": PARTS[name]} for name in HOLE.findall(path)),
            *({"name": name, "in": "query", "schema": kind} for name, kind in operation.query.items()),
        ],
        "responses": _responses(operation, bool(scopes), components),
        # one of the scopes is enough; {}: a daemon without tokens needs none
        "security": [{}, {"token": []}] if scopes else [{}],
    }
    if scopes:
        made["description"] = f"A token needs the scope {' or '.join(scopes)}."
    if operation.body:
        content = {media: {"schema": _schema(kind, components)} for media, kind in operation.body.items()}
        if FORM in content:
            content[FORM] = {"schema": _form(operation.body[FORM], components)}
        made["requestBody"] = {"content": content, "required": True}
    return made


def _responses(operation: Operation, guarded: bool, components: Components) -> dict[str, Any]:
    found: dict[int, JsonSchema] = {}
    for status, media in operation.answers.items():
        found[status] = {"description": HTTPStatus(status).phrase}
        if media is not None:
            content = {name: {"schema": _schema(kind, components)} for name, kind in media.items()}
            found[status]["content"] = content
    problem = {"content": {"application/json": {"schema": _schema(operation.error, components)}}}
    denied = {"content": {"application/json": {"schema": components.of(ErrorAnswer)}}}
    busy = () if 503 in found or not guarded else (503,)  # the number of requests at a time is bounded
    for status in sorted({*operation.errors, *busy, *(DENIED if guarded else (403,))} - set(found)):
        own = problem if status in operation.errors and status not in DENIED else denied
        found[status] = {"description": HTTPStatus(status).phrase, **own}
    return {str(status): found[status] for status in sorted(found)}


def _schema(kind: Any, components: Components) -> JsonSchema:
    """The schema of a type, or a schema in which types stand for their schemas."""
    if kind == "streamed":
        return {"$ref": "#/components/schemas/StreamAnswer"}
    if not isinstance(kind, dict):
        return components.of(kind)
    made = dict(kind)
    if "anyOf" in made:
        made["anyOf"] = [components.of(each) for each in made["anyOf"]]
    if "items" in made:
        made["items"] = components.of(made["items"])
    return made


def _form(kind: Any, components: Components) -> JsonSchema:
    """The schema of a form: its fields, and the recording."""
    components.of(kind)
    fields = components.schemas.pop(kind.__name__)["properties"]  # the form is more than these
    return {
        "type": "object",
        "properties": {"file": {"type": "string", "format": "binary"}, **fields},
        "required": ["file"],
    }
