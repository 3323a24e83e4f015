"""A sender hears what is wrong with its JSON, not what the interpreter is limited to."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from streamer.serve.kserve.errors import KServeError
from streamer.serve.kserve.http_codec import parse as parse_tensors
from streamer.serve.readings.otlp import parse as parse_otlp
from streamer.serve.readings.parsed import BodyError
from streamer.serve.stream.protocol import WireError, parse_control
from streamer.serve.strict_json import strict_json
from streamer.sources.mqtt_topics import MalformedError, Subscription
from streamer.sources.readings import Columns, Readings

LARGE = b'{"ts": 1, "b": ' + b"9" * 5000 + b"}"


def of_lines(body: bytes) -> None:
    said: list[str] = []
    assert list(Readings("body", Columns(), said.append, body)) == []
    raise ValueError(said[0])


PARSERS: dict[str, Callable[[bytes], object]] = {
    "lines": of_lines,
    "pretty": lambda body: of_lines(body.replace(b", ", b",\n")),
    "nan": lambda body: of_lines(body.replace(b"1", b"nan")),
    "topics": lambda body: Subscription.parse("t").readings("t", body),
    "otlp": lambda body: parse_otlp(body, "application/json"),
    "tensors": lambda body: parse_tensors(body, None),
    "frames": lambda body: parse_control(body, 10_000),
    "strict": strict_json,
}


@pytest.mark.parametrize("name", PARSERS)
def test_a_number_of_too_many_digits(name: str) -> None:
    with pytest.raises((ValueError, BodyError, KServeError, WireError, MalformedError), match="too large") as raised:
        PARSERS[name](LARGE)
    assert "sys." not in str(raised.value)
    assert "4300" not in str(raised.value)
