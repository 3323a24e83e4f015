"""MQTT without I/O: subscriptions, payloads, and the topics of forecasts.

A path is the unit of failure: one that can't be read raises :class:`MalformedError` and loses only its own reading.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations
from typing import Any

from streamer.json_words import json_trouble
from streamer.names import NAME_CHARACTERS, NameRefusedError, check_name
from streamer.sensors.columns import LARGEST, Reading, Row
from streamer.sources.tables.numbers import MISSING, NumberError, Numbers, Sentinels
from streamer.sources.tables.objects import NOTHING, at_path
from streamer.sources.times import parse_time

__all__ = [
    "MalformedError",
    "MqttOptions",
    "Subscription",
    "Watch",
    "clean",
    "overlap",
    "sentinels_of",
    "stream_topic",
]

#: Most numbers of one message without named paths; a device that sends more needs named paths.
MAX_NUMBERS = 100
TOPIC_BYTES = 65535


class MalformedError(ValueError):
    """``reason`` is one of a few words, for a counter: ``columns``, ``encoding``, ``json``, ``many``, ``name``,
    ``number``, ``path``, ``time``."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Subscription:
    """One line of the settings: ``TOPIC-PATTERN [time=PATH] [model=NAME] [missing=TEXT ...] [PATH ...]``, with double
    quotes around text with spaces. A path leads into a JSON payload, with dots: ``ENERGY.Power``,
    ``phases.0.current``; a path to a list reads each number in it. Without a path the payload is a number, or JSON of
    which every number is read. ``missing``: text that stands for no value, besides the usual words. ``model``: the
    payload is a row of that model's variables, whose names are its paths, and the stream is named after the topic;
    without it a payload with all variables of a model is such a row, too.
    """

    pattern: str
    paths: tuple[str, ...] = ()
    time: str | None = None
    model: str | None = None
    missing: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str, missing: Sequence[str] = ()) -> Subscription:
        """Parse a line. ``missing``: texts that stand for no value in all topics. Raises ``ValueError``."""
        try:
            pattern, *words = _words(text) or [""]
            _check_pattern(pattern)
            options = ("time=", "model=", "missing=")
            times, models, none = ([w.removeprefix(o) for w in words if w.startswith(o)] for o in options)
            paths = [word for word in words if not word.startswith(options)]
            for path in (*times, *paths):
                if "=" in path:
                    known = "time=PATH, model=NAME and missing=TEXT"
                    raise ValueError(f"{path!r} is not a path; the only options are {known}")
                if not all(path.split(".")):
                    raise ValueError(f"{path!r} is not a path, which is keys with dots between them")
            if len(times) > 1 or len(models) > 1 or len(set(paths)) < len(paths):
                raise ValueError("has a path or an option twice")
            if models and (paths or not models[0]):
                raise ValueError("has model=NAME: the paths are that model's variables, leave out others")
        except ValueError as error:
            raise ValueError(f"MQTT subscription {text[:NAME_CHARACTERS]!r}: {error}") from None
        time, model = times[0] if times else None, models[0] if models else None
        return cls(pattern, tuple(paths), time, model, (*missing, *none))

    def matches(self, topic: str) -> bool:
        return overlap(self.pattern, topic)

    def read(
        self,
        topic: str,
        payload: bytes,
        models: Mapping[str, Sequence[str]],
        faults: list[MalformedError] | None = None,
    ) -> tuple[str, list[Reading] | Row]:
        """The model's name and the message's readings. ``models``: variables of each model by its name, empty for the
        model of single sensors. Raises :class:`MalformedError` if nothing can be read; if only some paths can't,
        their errors go to ``faults``."""
        parsed = self._payload(payload)
        wanted, faults = self._model(parsed, models), [] if faults is None else faults
        if not models[wanted]:
            return wanted, self._readings(topic, parsed, faults)
        there = {name: at_path(parsed, name) for name in models[wanted]}
        there = {name: value for name, value in there.items() if value is not NOTHING}
        if not there:
            raise MalformedError("path", f"has none of {', '.join(models[wanted])[:NAME_CHARACTERS]}")
        return wanted, Row(self._moment(parsed), dict(self._each(there.items(), faults)), _stream(topic, ""))

    def numbers(self, models: Mapping[str, Sequence[str]]) -> str | None:
        """The model for a payload of one bare number. ``None``: there is no such model, or the number is not a reading
        named after the topic."""
        single = [name for name, variables in models.items() if not variables]
        plain = not self.paths and self.time is None and self.model is None
        return single[0] if plain and len(single) == 1 else None

    def _model(self, parsed: Any, models: Mapping[str, Sequence[str]]) -> str:
        if self.model is not None:
            if self.model not in models:
                raise MalformedError("columns", f"is for the model {self.model}, which is not served")
            return self.model
        fitting = {k: v for k, v in models.items() if v and all(at_path(parsed, path) is not NOTHING for path in v)}
        if not fitting or self.paths:
            fitting = {name: variables for name, variables in models.items() if not variables}
        if not fitting:
            raise MalformedError("columns", "has not all variables of any model that is served")
        widest = max(map(len, fitting.values()))
        found = [name for name, variables in fitting.items() if len(variables) == widest]
        if len(found) > 1:
            raise MalformedError("columns", f"fits several models: name one of {', '.join(found)} with model=NAME")
        return found[0]

    def _moment(self, parsed: Any) -> float | None:
        return None if self.time is None else _time(self.time, at_path(parsed, self.time))

    def readings(self, topic: str, payload: bytes) -> list[Reading]:
        """Readings of single sensors. Raises :class:`MalformedError`."""
        return self._readings(topic, self._payload(payload), [])

    def _readings(self, topic: str, parsed: Any, faults: list[MalformedError]) -> list[Reading]:
        at = self._moment(parsed)
        return [Reading(_stream(topic, path), at, value) for path, value in self._each(self._values(parsed), faults)]

    def _each(self, found: Iterable[tuple[str, Any]], faults: list[MalformedError]) -> list[tuple[str, float | None]]:
        """The values that are numbers, or missing. The others go to ``faults``; raises the first of these if no value
        is left."""
        sentinels, read = sentinels_of(self.missing), list[tuple[str, float | None]]()
        for path, value in found:
            try:
                read.append((path, _value(path or "the payload", value, sentinels)))
            except MalformedError as error:
                faults.append(error)
        if not read:
            raise faults[0]
        return read

    def _payload(self, payload: bytes) -> Any:
        try:
            text = payload.decode().strip()
        except UnicodeDecodeError:
            raise MalformedError("encoding", "is not UTF-8") from None
        parsed: Any = text
        if text.startswith(("{", "[")):
            try:
                parsed = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise MalformedError("json", f"is not JSON: {json_trouble(error)}") from None
        elif self.time is not None or (self.paths and text.lower() not in MISSING and text.lower() not in self.missing):
            raise MalformedError("json", f"is not a JSON object: {text[:40]!r}")
        return parsed

    def _values(self, parsed: Any) -> list[tuple[str, Any]]:
        if isinstance(parsed, str):  # a bare number, or a word for a missing value, is the value of every path
            return [(path, parsed) for path in self.paths or ("",)]
        found: list[tuple[str, Any]] = []
        if not self.paths:
            for path, number in _numbers(parsed):
                if path != self.time:
                    found.append((path, number))
                if len(found) > MAX_NUMBERS:
                    raise MalformedError("many", f"has more than {MAX_NUMBERS} numbers: name those that are wanted")
        for path in self.paths:
            value = at_path(parsed, path)
            if isinstance(value, list) and value:
                found += [(f"{path}.{at}", each) for at, each in enumerate(value[:MAX_NUMBERS])]
            elif value is not NOTHING:
                found.append((path, value))
        if not found:
            raise MalformedError("path", "has no " + (" and no ".join(self.paths)[:NAME_CHARACTERS] or "number"))
        return found


@dataclass(frozen=True, slots=True)
class Watch:
    """Callbacks for counting. Every received message has one outcome: ``taken``; ``partly`` (without the paths that
    can't be read); a reason of :class:`MalformedError`; ``status`` (Home Assistant's); ``unmatched`` (from an earlier
    subscription of the session); ``dropped`` (QoS 0, queue full); ``returned`` (QoS 1, not acknowledged, will be
    delivered again); ``lost`` (QoS 0 that could not be taken).

    Every forecast has one, too: ``sent``, ``superseded`` by a later one, ``dropped`` (too many streams), ``failed``.
    ``undiscovered`` also counts forecasts sent for streams beyond ``max_discovered``; ``uncleared`` counts forgotten
    streams whose topics keep their retained messages, because more than ``max_unsent`` streams waited to be cleared.

    ``refused``: the patterns that the broker does not let us read, with its reasons, once for each connection."""

    connected: Callable[[bool], None] = lambda connected: None
    reconnect: Callable[[], None] = lambda: None
    messages: Callable[[str, int], None] = lambda outcome, count: None
    forecasts: Callable[[str, int], None] = lambda outcome, count: None
    refused: Callable[[Mapping[str, str]], None] = lambda patterns: None


@dataclass(frozen=True, slots=True)
class MqttOptions:
    """Settings of the broker. Raises ``ValueError`` for invalid ones. Without ``subscriptions`` it only sends
    forecasts."""

    subscriptions: tuple[Subscription, ...] = ()
    host: str = "127.0.0.1"
    port: int = 1883  # with TLS mostly 8883
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    ca_file: str | None = None  # None: the authorities that the system trusts
    cert_file: str | None = None  # our own, and its key, for a broker that asks for them
    key_file: str | None = None
    client_id: str = "streamer"  # two clients of one name throw each other out, again and again
    session_seconds: int = 7 * 86400  # the broker keeps messages for us so long while we are down
    keepalive_seconds: int = 30
    connect_seconds: float = 5.0
    answer_seconds: float = 10.0
    leave_seconds: float = 2.0  # for the broker to read our last acknowledgements
    first_delay: float = 1.0
    max_delay: float = 60.0
    steady_seconds: float = 60.0  # after a connection that lasted so long the first delay counts again
    max_message_bytes: int = 65536  # the broker leaves out longer messages
    max_batch: int = 1000  # messages that are taken together
    max_unacknowledged: int = 1000  # QoS 1: then the broker waits
    max_waiting: int = 4096  # messages; then no more are read
    max_waiting_bytes: int = 2**24  # of topics and payloads; the same
    hold_seconds: float = 5.0  # ... for so long; then those of QoS 0 are dropped, counted
    max_complaints: int = 1000  # topics whose malformed payload is logged; of more they are only counted
    prefix: str = "streamer"  # forecasts go to <prefix>/<stream>
    retain: bool = True
    max_unsent: int = 4096  # streams whose latest forecast waits: then the oldest is dropped, counted
    discovery: str | None = None  # Home Assistant's prefix, mostly "homeassistant"
    max_discovered: int = 200  # streams; forecasts of more are sent without, counted
    anomaly: float = 0.001  # a reading less probable than this is an anomaly for Home Assistant
    max_curve_bytes: int = 16000  # of an entity's attributes; Home Assistant drops longer ones

    def __post_init__(self) -> None:
        for name, topic in (("prefix", self.prefix), ("discovery", self.discovery)):
            if topic is not None and (not all(topic.split("/")) or topic != clean(topic) or topic[0] == "$"):
                raise ValueError(
                    f"MQTT {name} {topic!r} is not a topic to publish to, such as {name!r} or 'home/{name}'"
                )
        if not self.client_id:
            raise ValueError("MQTT client_id is empty: the broker keeps messages for a name that stays the same")
        if not 1 <= self.max_unacknowledged <= 65535:
            raise ValueError(f"MQTT max_unacknowledged {self.max_unacknowledged} is not between 1 and 65535")
        for subscription in self.subscriptions:
            if overlap(subscription.pattern, f"{self.prefix}/#"):
                raise ValueError(
                    f"MQTT subscription {subscription.pattern!r} would read back our own forecasts, which go to "
                    f"{self.prefix}/...: make it narrower, or choose another prefix"
                )
        for one, other in combinations(self.subscriptions, 2):
            if overlap(one.pattern, other.pattern):  # brokers may send such a message once or twice
                raise ValueError(
                    f"MQTT subscriptions {one.pattern!r} and {other.pattern!r} match the same topics: make them one "
                    "with the paths of both"
                )


def overlap(one: str, other: str) -> bool:
    """Whether some topic matches both patterns. A topic is a pattern, too."""
    a, b = sorted((one.split("/"), other.split("/")), key=len)
    if a[0] != b[0] and (a[0][:1] == "$" or b[0][:1] == "$"):
        return False  # wildcards don't match $SYS and its like
    for mine, theirs in zip(a, b, strict=False):
        if "#" in (mine, theirs):
            return True
        if mine != theirs and "+" not in (mine, theirs):
            return False
    return len(a) == len(b) or b[len(a)] == "#"


@lru_cache(maxsize=1024)
def sentinels_of(missing: tuple[str, ...]) -> Sentinels:
    return Sentinels.of(missing)


def stream_topic(prefix: str, stream: str) -> str:
    """The topic of a stream's forecasts; never below ``prefix/$``, where the daemon's own topics are."""
    name = clean(stream)
    return f"{prefix}/{'_' + name[1:] if name.startswith('$') else name}"


def _check_pattern(pattern: str) -> None:
    levels = pattern.split("/")
    if not pattern or not pattern.isprintable() or len(pattern.encode()) > TOPIC_BYTES:
        raise ValueError("has no topic pattern, such as sensors/+/temperature")
    if levels[0] == "$share":
        raise ValueError("is shared: readings of one stream would go to several clients")
    if any("+" in level and level != "+" for level in levels):
        raise ValueError("+ stands for a whole level: a/+/b")
    if any("#" in level for level in levels[:-1]) or ("#" in levels[-1] and levels[-1] != "#"):
        raise ValueError("# stands for all levels from there on, and is the last: a/#")


def clean(topic: str) -> str:
    """A topic without wildcards and control characters, on which brokers close the connection."""
    if topic.isprintable() and "+" not in topic and "#" not in topic:
        return topic
    return "".join(c if c.isprintable() and c not in "+#" else "_" for c in topic)


def _stream(topic: str, path: str) -> str:
    try:
        return check_name(f"{topic}.{path}" if path else topic)
    except NameRefusedError as error:
        raise MalformedError("name", str(error)) from None


def _numbers(parsed: Any) -> Iterator[tuple[str, int | float]]:
    """Every number at any depth, in the order of the payload."""
    left: list[tuple[str, Any]] = [("", parsed)]
    while left:
        path, node = left.pop()
        if isinstance(node, dict | list):
            if len(path) > NAME_CHARACTERS:
                raise MalformedError("name", f"{path[:40]!r}... is too deep for a name")
            items = node.items() if isinstance(node, dict) else enumerate(node)
            left.extend([(f"{path}.{key}" if path else str(key), value) for key, value in items][::-1])
        elif isinstance(node, int | float) and not isinstance(node, bool):
            yield path, node


def _value(path: str, parsed: Any, sentinels: Sentinels) -> float | None:
    """``None``: missing."""
    if parsed is None:
        return None
    try:
        if isinstance(parsed, str):
            return Numbers(sentinels=sentinels, switches=True)(parsed)
        if not isinstance(parsed, int | float):
            raise NumberError("is no number")
        value = float(parsed)
    except OverflowError:
        return None
    except NumberError as error:
        why = str(error).partition(": say which")[0]  # advice for the command line only
        raise MalformedError("number", f"{path}: {str(parsed)[:40]!r} {why}") from None
    return value if abs(value) < LARGEST and value not in sentinels.numbers else None  # NaN, too


def _words(text: str) -> list[str]:
    """Words of a line of the settings; double quotes group text with spaces. Raises ``ValueError``."""
    if text.count('"') % 2:
        raise ValueError("has a quote that is never closed")
    return [word.replace('"', "") for word in re.findall(r'(?:"[^"]*"|[^\s"])+', text)]


def _time(path: str, parsed: Any) -> float:
    if isinstance(parsed, bool) or not isinstance(parsed, str | int | float):
        raise MalformedError("time", f"{path} is not a time" if parsed is not NOTHING else f"has no {path}")
    try:
        return parse_time(parsed)
    except (ValueError, OverflowError) as error:
        raise MalformedError("time", f"{path}: {error}") from None
