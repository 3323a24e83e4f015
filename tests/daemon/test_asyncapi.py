"""The AsyncAPI document is one, names every channel, and real messages are what it says they are."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for
from websockets.sync.client import connect

from streamer.engine.catalogue import resolve
from streamer.serve.access.rules import RULES
from tests.daemon.running import ROOT, Running, daemon
from tests.rows import row_model, some_rows
from tests.toys import speech, toy_model

TRAINED = ROOT / "models" / "zoo" / "trained"
#: Generators, and the events that each writes.
WRITERS = {"characters": "text", "music": "note", "spoken-digits": "audio"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("asyncapi")
    models = (
        toy_model(folder),
        row_model(folder),
        resolve("forecast-universal"),
        *(TRAINED / f"{name}.onnx" for name in WRITERS),
    )
    with daemon(folder / "daemon", *models, checkpoint_seconds=0.1) as running:
        yield running


@pytest.fixture(scope="module")
def document(served: Running) -> dict[str, Any]:
    status, text = served.get("/asyncapi.json")
    assert status == 200
    found: dict[str, Any] = json.loads(text)
    return found


#: The parts of AsyncAPI 3.0 that are in the document (https://www.asyncapi.com/docs/reference/specification/v3.0.0).
REFERENCE = {"type": "object", "required": ["$ref"], "properties": {"$ref": {"pattern": "^#/"}}}
REFERENCES = {"type": "array", "items": REFERENCE}
NAMES = {"pattern": "^[\\w.-]+$"}


def fields(required: str, **properties: Any) -> dict[str, Any]:
    there = {name: {} for name in required.split()} | properties
    return {"type": "object", "required": required.split(), "properties": there, "additionalProperties": False}


def named(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": schema, "propertyNames": NAMES, "minProperties": 1}


PARTS = fields(
    "asyncapi info channels operations components",
    asyncapi={"const": "3.0.0"},
    info=fields("title version", description={"type": "string"}, license=fields("name", url={})),
    defaultContentType={"const": "application/json"},
    servers=named(fields("host protocol", security=REFERENCES)),
    channels=named(fields("address messages", description={}, servers=REFERENCES, messages=named(REFERENCE))),
    operations=named(fields("action channel", action={"enum": ["send", "receive"]}, messages=REFERENCES)),
    components=fields(
        "",
        messages=named(fields("payload", name={}, contentType={}, summary={})),
        schemas=named({"type": "object"}),
        securitySchemes=named(fields("type", type={"enum": ["http"]}, scheme={})),
    ),
)


@pytest.mark.long
def test_it_is_an_asyncapi_document(document: dict[str, Any]) -> None:
    Draft202012Validator(PARTS).validate(document)
    text = json.dumps(document)
    for reference in text.split('"$ref": "#/')[1:]:
        node: Any = document
        for part in reference.partition('"')[0].split("/"):
            node = node[part]
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for name in document["components"]["messages"]:
        assert f'"#/components/messages/{name}"' in text


def test_it_keeps_to_the_published_schema(document: dict[str, Any]) -> None:
    """Of the npm package @asyncapi/specs, where its folder is named: no package of Python has that schema."""
    folder = os.environ.get("ASYNCAPI_SPECS")
    if not folder:
        pytest.skip("ASYNCAPI_SPECS names no folder (npm pack @asyncapi/specs)")
    schema = json.loads((Path(folder) / "schemas" / "3.0.0.json").read_text())
    assert [error.message for error in validator_for(schema)(schema).iter_errors(document)] == []


def test_every_channel_is_a_path_that_is_served(document: dict[str, Any]) -> None:
    addresses = {channel["address"] for channel in document["channels"].values()}
    assert addresses == {"/v1/stream", "/v1/sensors", "/v1/realtime", "/v1/generate"}
    assert addresses <= {rule.path for rule in RULES}


def validator(document: dict[str, Any], operation: str) -> Draft202012Validator:
    """Of the messages of one operation; a field that is not named there is an error, too."""
    said = copy.deepcopy(document)
    for schema in said["components"]["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    names = [message["$ref"].rpartition("/")[2] for message in said["operations"][operation]["messages"]]
    payloads = [said["components"]["messages"][name]["payload"] for name in names]
    return Draft202012Validator({"anyOf": payloads, "components": said["components"]})


class DocumentedTalk:
    """A WebSocket whose text messages, both ways, are held to the document."""

    def __init__(self, document: dict[str, Any], socket: Any, channel: str) -> None:
        self._socket = socket
        self._taken, self._sent = (validator(document, f"{way}_{channel}") for way in ("receive", "send"))
        self.types: set[str] = set()

    def say(self, frame: dict[str, Any] | bytes) -> None:
        if isinstance(frame, dict):
            self._taken.validate(frame)
        self._socket.send(frame if isinstance(frame, bytes) else json.dumps(frame))

    def until(self, kind: str) -> dict[str, Any]:
        while True:
            message = self._socket.recv(60)
            if isinstance(message, bytes):
                self.types.add("binary")
                continue
            event: dict[str, Any] = json.loads(message)
            self._sent.validate(event)
            self.types.add(event["type"])
            if event["type"] == kind:
                return event


def test_messages_of_sound(served: Running, document: dict[str, Any]) -> None:
    with connect(served.url) as socket:
        talk = DocumentedTalk(document, socket, "stream")
        talk.say({"type": "start", "model": "toy", "key": "a"})
        talk.until("ready")
        talk.say(speech("AB A", 8000).tobytes())
        talk.say({"type": "marker", "id": "m"})
        talk.until("marker")
        talk.until("ack")
        talk.say({"type": "end"})
        talk.until("end")
    assert {"ready", "partial", "final", "marker", "ack", "end"} <= talk.types


@pytest.mark.parametrize("outputs", ["json", "binary"])
def test_messages_of_rows(served: Running, document: dict[str, Any], outputs: str) -> None:
    with connect(served.url) as socket:
        talk = DocumentedTalk(document, socket, "stream")
        talk.say({"type": "start", "model": "plant", "outputs": outputs})
        talk.until("ready")
        rows = some_rows(3, 2)
        talk.say({"type": "rows", "values": rows["x"].tolist()})
        event = talk.until("outputs")
        talk.say({"type": "end"})
        talk.until("end")
    assert ("shapes" in event) == (outputs == "binary") == ("binary" in talk.types)


def test_messages_of_errors(served: Running, document: dict[str, Any]) -> None:
    for first in ({"type": "start", "model": "none"}, {"type": "resume", "stream": "none"}, {"type": "end"}):
        with connect(served.url) as socket:
            talk = DocumentedTalk(document, socket, "stream")
            talk.say(first)
            talk.until("error")


def test_messages_of_sensors(served: Running, document: dict[str, Any]) -> None:
    with connect(f"ws://127.0.0.1:{served.port}/v1/sensors") as socket:
        talk = DocumentedTalk(document, socket, "sensors")
        talk.say({"type": "subscribe", "streams": ["pump*"]})
        talk.until("subscribed")
        for minute in range(3):
            talk.say({"id": "pump", "time": 1.7e9 + 60 * minute, "temperature": 20.5})
            talk.until("forecast")
        talk.say({"id": "pump", "time": 1.0, "temperature": 1})  # late, and taken all the same
        talk.until("taken")
    assert {"subscribed", "taken", "forecast"} <= talk.types


@pytest.mark.parametrize(("model", "kind"), WRITERS.items())
def test_events_of_generators(served: Running, document: dict[str, Any], model: str, kind: str) -> None:
    wish = {"model": model, "length": 400}
    validator(document, "receive_generate").validate(wish)
    answer = served.ask("POST", "/v1/generate", json.dumps(wish).encode())
    assert answer.status == 200
    events = [json.loads(line) for line in answer.text.splitlines()]
    for event in events:
        validator(document, "send_generate").validate(event)
    assert {event["type"] for event in events} == {kind, "end"}


@pytest.mark.parametrize("wrong", [{"type": "ready"}, {"type": "nothing"}, {}, {"type": "ack", "position": -1}])
def test_what_is_no_message_is_none_in_the_document(document: dict[str, Any], wrong: dict[str, Any]) -> None:
    assert not validator(document, "send_stream").is_valid(wrong)
