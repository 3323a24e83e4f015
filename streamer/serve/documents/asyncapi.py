"""The AsyncAPI document of the WebSockets, made from the frames that the code reads and the events that it sends."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from streamer import __version__
from streamer.serve.access.rules import needed
from streamer.serve.documents.components import Components, JsonSchema
from streamer.serve.documents.events import ErrorEvent, SensorForecast, generated_events, stream_events
from streamer.serve.generate import GenerateRequest
from streamer.serve.openai.realtime import REALTIME_PATH
from streamer.serve.readings.subscribe import PATH as SENSORS_PATH
from streamer.serve.readings.subscribe import Subscribe
from streamer.serve.stream.protocol import STREAM_PATH, End, Marker, Resume, Rows, Start

__all__ = ["asyncapi"]

#: The schema of a binary frame.
BINARY: JsonSchema = {"type": "string", "format": "binary"}


class SensorReading(BaseModel):
    """A reading: a time, the sensor's name, and a number for each of its values."""

    model_config = {"extra": "allow"}


class TakenAnswer(BaseModel):
    """The readings of a frame are on the disk. ``refused``: number that was left out; ``errors``: why."""

    type: Literal["taken"]
    readings: int
    refused: int
    left_out: list[str] | None = None
    errors: list[str] | None = None


class SubscribedAnswer(BaseModel):
    """The client gets forecasts of the sensors whose names match these patterns from now on."""

    type: Literal["subscribed"]
    streams: list[str]


class RealtimeMessage(BaseModel):
    """A message of OpenAI's realtime transcription, as their reference has it."""

    model_config = {"extra": "allow"}

    type: str


def asyncapi() -> dict[str, Any]:
    """AsyncAPI 3.0, JSON-ready."""
    components = Components()
    stream, generated = stream_events(components), generated_events(components)
    made = _ChannelTable(components)
    frames = [components.of(frame) for frame in (Start, Resume, Rows, Marker, End)]
    made.channel("stream", STREAM_PATH, "One connection, one stream of a model.", [*frames, BINARY], [*stream, BINARY])
    sent = [components.of(each) for each in (TakenAnswer, SubscribedAnswer, SensorForecast, ErrorEvent)]
    taken = [components.of(each) for each in (Subscribe, SensorReading)]
    made.channel("sensors", SENSORS_PATH, "Readings in, forecasts out.", taken, sent)
    either = [components.of(RealtimeMessage)]
    made.channel("realtime", REALTIME_PATH, "OpenAI's realtime transcription.", either, either)
    wish = [components.of(GenerateRequest)]
    made.channel(
        "generate", "/v1/generate", "A request, and the events of a generator, one a line.", wish, generated, "http"
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "streamer",
            "version": __version__,
            "description": "WebSockets on the daemon's port. Text frames are JSON, binary frames are rows or sound."
            " A token goes with the handshake: Authorization: Bearer TOKEN.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "websocket": {"host": "127.0.0.1:8765", "protocol": "ws", "security": [made.security]},
            "http": {"host": "127.0.0.1:8765", "protocol": "http", "security": [made.security]},
        },
        "channels": made.channels,
        "operations": made.operations,
        "components": {
            "messages": made.messages,
            "schemas": components.schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


class _ChannelTable:
    """Channels, their operations and messages, as they are added."""

    def __init__(self, components: Components) -> None:
        self._components = components
        self.security: JsonSchema = {"$ref": "#/components/securitySchemes/token"}
        self.channels: dict[str, JsonSchema] = {}
        self.operations: dict[str, JsonSchema] = {}
        self.messages: dict[str, JsonSchema] = {}

    def channel(
        self, name: str, path: str, text: str, taken: list[JsonSchema], sent: list[JsonSchema], protocol: str = "ws"
    ) -> None:
        """Add a channel. ``taken``: schemas of the messages that the daemon reads; ``sent``: of those that it sends.
        The table of rules has the scopes."""
        scopes = " or ".join(needed("GET" if protocol == "ws" else "POST", path))
        there: dict[str, JsonSchema] = {}
        for action, schemas in (("receive", taken), ("send", sent)):
            named = {self._message(schema): None for schema in schemas}
            there |= {each: {"$ref": f"#/components/messages/{each}"} for each in named}
            self.operations[f"{action}_{name}"] = {
                "action": action,
                "channel": {"$ref": f"#/channels/{name}"},
                "messages": [{"$ref": f"#/channels/{name}/messages/{each}"} for each in named],
            }
        self.channels[name] = {
            "address": path,
            "description": f"{text} A token needs the scope {scopes}.",
            "servers": [{"$ref": f"#/servers/{'websocket' if protocol == 'ws' else 'http'}"}],
            "messages": there,
        }

    def _message(self, schema: JsonSchema) -> str:
        if schema is BINARY:
            name, content = "Binary", "application/octet-stream"
        else:
            name, content = schema["$ref"].rpartition("/")[2], "application/json"
        about = self._components.schemas.get(name, {}).get("description")
        self.messages[name] = {"name": name, "contentType": content, "payload": schema}
        if about:
            self.messages[name]["summary"] = " ".join(about.split())
        return name
