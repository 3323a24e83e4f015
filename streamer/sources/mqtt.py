"""Readings from an MQTT broker, and forecasts back to it, inside the daemon's event loop.

A QoS 1 message is acknowledged once ``take`` has returned, that is once it is on the disk. If anything fails before
that (the connection, this process, ``take``), the broker delivers it again, in order: at least once. The broker keeps
the session (MQTT 5, fixed client id), including messages that arrive while this process is down. Retained messages are
not requested, since their time is unknown.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

from streamer.names import NAME_CHARACTERS
from streamer.sensors.columns import Forecasts, ReadingBatch, Row
from streamer.sources.home_assistant import OFFLINE, ONLINE
from streamer.sources.mqtt_forecasts import ForecastQueue
from streamer.sources.mqtt_link import Link, Message, MqttError
from streamer.sources.mqtt_topics import MalformedError, MqttOptions, Subscription, Watch, sentinels_of

__all__ = ["Mqtt", "MqttOptions", "Subscription", "Watch"]

log = logging.getLogger(__name__)

#: Default name of the model for single sensors.
SINGLE = "sensors"
#: A payload that is nothing but a number, as most are.
NUMBER = re.compile(rb"[+-]?[0-9]{1,40}(?:\.[0-9]{0,40})?(?:[eE][+-]?[0-9]{1,3})?")
#: Most topics in the cache of how a topic is read.
REMEMBERED = 100_000


class _Topic(NamedTuple):
    """How a topic is read. ``numbers``: the model for a payload of one bare number, which is the reading of a sensor
    named after the topic; ``None``: such a payload is read like any other. ``none``: numbers that stand for no
    value."""

    subscription: Subscription | None
    numbers: str | None = None
    none: frozenset[float] = frozenset()


@dataclass(slots=True)
class _Collected:
    """The readings of messages for one model: of single sensors in columns, or rows."""

    names: list[str] = field(default_factory=list)
    times: list[float | None] = field(default_factory=list)
    values: list[float | None] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


class Mqtt:
    """The connection to one broker; to be used in the event loop's thread only.

    ``take`` gets batches by model and returns once they are on the disk, with an error for each model whose batch can't
    be taken now; an exception that it raises counts for all. ``models``: the served models, as in
    :meth:`Subscription.read`. Raises ``OSError`` if ``ca_file`` or our own certificate can't be read."""

    def __init__(
        self,
        options: MqttOptions,
        take: Callable[[Mapping[str, ReadingBatch]], Awaitable[Mapping[str, Exception]]],
        watch: Watch | None = None,
        models: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._options, self._take, self._watch = options, take, watch or Watch()
        self._models = {SINGLE: ()} if models is None else models
        self._outbox = ForecastQueue(options, self._watch)
        self._status = f"{options.discovery}/status" if options.discovery else None
        self._complained: set[str] = set()
        self._topics: dict[str, _Topic] = {}
        self._tls = ssl.create_default_context(cafile=options.ca_file) if options.tls else None
        if self._tls is not None and options.cert_file is not None:
            self._tls.load_cert_chain(options.cert_file, options.key_file)

    def publish(self, forecasts: Forecasts) -> None:
        """Queue a forecast; the latest of each stream is sent as soon as there is a connection."""
        self._outbox.put(forecasts)

    def forget(self, stream: str, targets: Sequence[str] = ()) -> None:
        """Have Home Assistant and the broker forget a stream: its retained messages are cleared."""
        self._outbox.forget(stream, targets)

    async def run(self) -> NoReturn:
        delay = self._options.first_delay
        while True:
            began = time.monotonic()
            try:
                await self._connection()
            except MqttError as error:
                log.warning(
                    "no connection to the MQTT broker", extra={"host": self._options.host, "reason": str(error)}
                )
            except Exception:
                log.exception("the connection to the MQTT broker failed")
            finally:
                self._watch.connected(False)
            if time.monotonic() - began >= self._options.steady_seconds:
                delay = self._options.first_delay
            await asyncio.sleep(delay * random.uniform(0.5, 1))
            delay = min(2 * delay, self._options.max_delay)
            self._watch.reconnect()

    async def _connection(self) -> None:
        async with Link(self._options, self._watch, self._tls) as link:
            await self._subscribe(link)
            self._watch.connected(True)
            log.info("connected to the MQTT broker", extra={"host": self._options.host, "port": self._options.port})
            link.publish_status(ONLINE)
            sender = asyncio.create_task(self._outbox.send(link.publish))
            # A failing sender ends the connection, but must not cancel readings that are being written to the disk.
            sender.add_done_callback(link.ended)
            try:
                await self._receive(link)
            finally:
                sender.cancel()
                await asyncio.wait([sender])
                link.publish_status(OFFLINE)  # after a proper disconnect the broker publishes no last will

    async def _subscribe(self, link: Link) -> None:
        patterns = [subscription.pattern for subscription in self._options.subscriptions]
        patterns += [self._status] if self._status else []
        answers = await link.subscribe(patterns) if patterns else []
        refused = {pattern: why for pattern, why in zip(patterns, answers, strict=True) if why}
        for pattern, why in refused.items():
            log.error("the MQTT broker refuses a subscription", extra={"pattern": pattern, "reason": why})
        self._watch.refused(refused)

    async def _receive(self, link: Link) -> NoReturn:
        while True:
            messages = await link.waiting(self._options.max_batch)
            if link.over:  # the broker delivers unacknowledged messages again on the next connection
                self._watch.messages("returned", _again(messages))
                messages = [message for message in messages if message.packet_id is None]
            found: dict[str, _Collected] = {}
            read = [self._read(message, found) for message in messages]
            failed = await self._failed(found) if found else {}
            if not failed:
                link.acknowledge(messages)
                self._count(outcome for outcome, _ in read)
                continue
            kept = [
                (each, outcome) for each, (outcome, model) in zip(messages, read, strict=True) if model not in failed
            ]
            link.acknowledge(message for message, _ in kept)
            self._count(outcome for _, outcome in kept)
            others = [message for message, (_, model) in zip(messages, read, strict=True) if model in failed]
            self._watch.messages("returned", _again(others))
            self._watch.messages("lost", len(others) - _again(others))
            reason = "; ".join(dict.fromkeys(map(str, failed.values())))
            raise MqttError(f"readings are not taken: {reason}")

    def _count(self, outcomes: Iterable[str]) -> None:
        for outcome, count in Counter(outcomes).items():
            self._watch.messages(outcome, count)

    async def _failed(self, found: Mapping[str, _Collected]) -> Mapping[str, Exception]:
        """Pass batches to ``take``; errors by model."""
        try:
            return await self._take({model: self._batch(model, collected) for model, collected in found.items()})
        except Exception as error:
            return dict.fromkeys(found, error)

    def _batch(self, model: str, collected: _Collected) -> ReadingBatch:
        if variables := self._models[model]:
            return ReadingBatch.of_rows(collected.rows, variables, model)
        return ReadingBatch.made(collected.names, collected.times, collected.values)

    def _read(self, message: Message, found: dict[str, _Collected]) -> tuple[str, str | None]:
        """Parse one message: its outcome and model; its readings are added to ``found``, by model."""
        topic, payload = message.topic, message.payload
        how = self._topics.get(topic) or self._look_at(topic)
        if (model := how.numbers) is not None and NUMBER.fullmatch(payload):
            collected, value = found.get(model) or found.setdefault(model, _Collected()), float(payload)
            collected.names.append(topic)
            collected.times.append(None)
            collected.values.append(None if value in how.none else value)
            return "taken", model
        if topic == self._status:
            if payload == b"online":
                self._outbox.announce()
            return "status", None
        if how.subscription is None:
            return "unmatched", None
        faults: list[MalformedError] = []
        try:
            model, read = how.subscription.read(topic, payload, self._models, faults)
        except MalformedError as error:
            self._complain(topic, "an MQTT message can't be read", error)
            return error.reason, None
        if faults:
            self._complain(topic, "a part of an MQTT message can't be read", faults[0])
        collected = found.setdefault(model, _Collected())
        if isinstance(read, Row):
            collected.rows.append(read)
        else:
            collected.names += (reading.stream for reading in read)
            collected.times += (reading.time for reading in read)
            collected.values += (reading.value for reading in read)
        return "partly" if faults else "taken", model

    def _look_at(self, topic: str) -> _Topic:
        """How a topic is read; cached if the topic can be a sensor's name."""
        subscription = next((s for s in self._options.subscriptions if s.matches(topic)), None)
        if subscription is None or topic == self._status:
            return _Topic(subscription)
        if not topic.isprintable() or len(topic) > NAME_CHARACTERS:
            return _Topic(subscription)
        model, none = subscription.numbers(self._models), sentinels_of(subscription.missing).numbers
        if len(self._topics) >= REMEMBERED:
            self._topics.clear()
        how = self._topics[topic] = _Topic(subscription, model, none)
        return how

    def _complain(self, topic: str, what: str, error: MalformedError) -> None:
        """Log a malformed payload, once for each topic."""
        if topic not in self._complained and len(self._complained) < self._options.max_complaints:
            self._complained.add(topic)
            log.warning(what, extra={"topic": topic[:200], "code": error.reason, "detail": str(error)})


def _again(messages: Sequence[Message]) -> int:
    """The number of messages of QoS 1: the broker delivers them again if they are not acknowledged."""
    return sum(message.packet_id is not None for message in messages)
