"""Readings from an MQTT broker, and forecasts back to it, inside the daemon's event loop.

A QoS 1 message is acknowledged once ``take`` has returned, that is once it is on the disk. If anything fails before
that (the connection, this process, ``take``), the broker delivers it again, in order: at least once. The broker keeps
the session (MQTT 5, fixed client id), including messages that arrive while this process is down. Memory is bounded: for
QoS 1 by a receive maximum, which makes the broker wait, for QoS 0 by dropping. Retained messages are not requested,
since their time is unknown.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn, Self, cast

from streamer.sensors.columns import Forecasts, Reading, ReadingBatch, Row
from streamer.sources import SourceError
from streamer.sources.home_assistant import OFFLINE, ONLINE, availability_topic
from streamer.sources.mqtt_forecasts import ForecastQueue
from streamer.sources.mqtt_topics import (
    MalformedError,
    MqttOptions,
    Subscription,
    Watch,
)

try:
    import aiomqtt
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties
    from paho.mqtt.subscribeoptions import SubscribeOptions
except ImportError as error:
    raise SourceError("MQTT needs the package aiomqtt: pip install 'streamer[sensors]'") from error

__all__ = ["Mqtt", "MqttOptions", "Subscription", "Watch"]

log = logging.getLogger(__name__)

#: Default name of the model for single sensors.
SINGLE = "sensors"


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
        self._tls = ssl.create_default_context(cafile=options.ca_file) if options.tls else None
        if self._tls is not None:
            self._tls.sslsocket_class = TlsSocket
            if options.cert_file is not None:
                self._tls.load_cert_chain(options.cert_file, options.key_file)

    def publish(self, forecasts: Forecasts) -> None:
        """Queue a forecast; the latest of each stream is sent as soon as there is a connection."""
        self._outbox.put(forecasts)

    def forget(self, stream: str, targets: Sequence[str] = ()) -> None:
        """Have Home Assistant and the broker forget a stream: what is retained of it is taken back."""
        self._outbox.forget(stream, targets)

    async def run(self) -> NoReturn:
        delay = self._options.first_delay
        while True:
            began = time.monotonic()
            try:
                await self._connection()
            except aiomqtt.MqttError as error:
                context = {"host": self._options.host, "reason": str(error.__cause__ or error)}
                log.warning("no connection to the MQTT broker", extra=context)
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
            await link.say(ONLINE)
            post = partial(link.publish, qos=self._options.qos, retain=self._options.retain)
            sender = asyncio.create_task(self._outbox.send(post))
            # A failing sender ends the connection, but must not cancel readings that are being written to the disk.
            sender.add_done_callback(link.ended)
            try:
                await self._receive(link)
            finally:
                sender.cancel()
                await asyncio.wait([sender])
                await link.say(OFFLINE)  # the will is for those who can't say it themselves

    async def _subscribe(self, link: Link) -> None:
        wanted = SubscribeOptions(qos=1, noLocal=True, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
        patterns = [subscription.pattern for subscription in self._options.subscriptions]
        patterns += [self._status] if self._status else []
        if not patterns:
            return
        codes = cast(Any, await link.subscribe([(pattern, wanted) for pattern in patterns]))
        for pattern, code in zip(patterns, codes, strict=True):
            if code.is_failure:
                log.error("the MQTT broker refuses a subscription", extra={"pattern": pattern, "reason": str(code)})

    async def _receive(self, link: Link) -> NoReturn:
        while True:
            messages = await link.waiting(self._options.max_batch)
            if link.over:  # what is not acknowledged comes again with the next connection
                self._watch.messages("returned", sum(message.qos > 0 for message in messages))
                messages = [message for message in messages if message.qos == 0]
            found: dict[str, list[Reading | Row]] = {}
            read = [(message, *self._read(message, found)) for message in messages]
            failed = await self._failed(found) if found else {}
            safe = [(message, outcome) for message, outcome, model in read if model not in failed]
            link.acknowledge([message for message, _ in safe])
            for outcome, count in Counter(outcome for _, outcome in safe).items():
                self._watch.messages(outcome, count)
            if failed:
                others = [message for message, _, model in read if model in failed]
                self._watch.messages("returned", sum(message.qos > 0 for message in others))
                self._watch.messages("lost", sum(message.qos == 0 for message in others))
                reason = "; ".join(dict.fromkeys(map(str, failed.values())))
                raise aiomqtt.MqttError(f"readings are not taken: {reason}")

    async def _failed(self, found: Mapping[str, list[Reading | Row]]) -> Mapping[str, Exception]:
        """Pass batches to ``take``; errors by model."""
        try:
            return await self._take({model: self._batch(model, readings) for model, readings in found.items()})
        except Exception as error:
            return dict.fromkeys(found, error)

    def _batch(self, model: str, readings: list[Any]) -> ReadingBatch:
        variables = self._models[model]
        return ReadingBatch.of_rows(readings, variables, model) if variables else ReadingBatch.of(readings)

    def _read(self, message: aiomqtt.Message, found: dict[str, list[Reading | Row]]) -> tuple[str, str | None]:
        """Parse one message: its outcome and model; its readings are added to ``found``, by model."""
        if (topic := message.topic.value) == self._status:
            if message.payload == b"online":
                self._outbox.announce()
            return "status", None
        subscription = next((s for s in self._options.subscriptions if s.matches(topic)), None)
        if subscription is None:
            return "unmatched", None
        faults: list[MalformedError] = []
        try:
            model, said = subscription.read(topic, message.payload, self._models, faults)
        except MalformedError as error:
            self._complain(topic, "an MQTT message can't be read", error)
            return error.reason, None
        if faults:
            self._complain(topic, "a part of an MQTT message can't be read", faults[0])
        found.setdefault(model, []).extend(said if isinstance(said, list) else [said])
        return "partly" if faults else "taken", model

    def _complain(self, topic: str, what: str, error: MalformedError) -> None:
        """Log a malformed payload, once for each topic."""
        if topic not in self._complained and len(self._complained) < self._options.max_complaints:
            self._complained.add(topic)
            log.warning(what, extra={"topic": topic[:200], "reason": str(error)})


class MessageQueue(asyncio.Queue[aiomqtt.Message]):
    """Received messages. There is always room for QoS 1, whose number the receive maximum bounds."""

    def __init__(self, options: MqttOptions, watch: Watch) -> None:
        super().__init__(options.max_waiting + options.max_unacknowledged)
        self._most, self._watch = options.max_waiting, watch

    def put_nowait(self, message: aiomqtt.Message) -> None:
        if message.qos == 0 and self.qsize() >= self._most:
            self._watch.messages("dropped", 1)
        else:
            super().put_nowait(message)


class TlsSocket(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()  # which paho forgets
            raise


class Link(aiomqtt.Client):
    """One connection: aiomqtt's client plus manual acknowledgement and a complete shutdown. For one use only, since
    message ids are not valid on the next connection."""

    def __init__(self, options: MqttOptions, watch: Watch, tls: ssl.SSLContext | None) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = options.session_seconds
        properties.ReceiveMaximum = options.max_unacknowledged
        properties.MaximumPacketSize = options.max_message_bytes
        # only who asks for Home Assistant expects something else than forecasts below the prefix
        status = availability_topic(options.prefix) if options.discovery else None
        super().__init__(
            options.host,
            options.port,
            username=options.username,
            password=options.password,
            identifier=options.client_id,
            queue_type=cast(Any, lambda maxsize: MessageQueue(options, watch)),
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=False,
            timeout=options.answer_seconds,
            keepalive=options.keepalive_seconds,
            properties=properties,
            tls_context=tls,
            # said by the broker once the connection is lost: by kill -9, a power cut, a broken cable
            will=aiomqtt.Will(status, OFFLINE, qos=1, retain=True) if status else None,
        )
        self._status = status
        self._client.connect_timeout = options.connect_seconds
        self._client.manual_ack_set(True)

    async def __aenter__(self) -> Self:
        opening = asyncio.ensure_future(super().__aenter__())
        try:
            return await asyncio.shield(opening)
        except BaseException:
            # a thread connects, which can't be interrupted: wait for it, so that nothing is left open
            await asyncio.wait([opening])
            self._cut(opening)
            raise

    async def __aexit__(self, *error: Any) -> None:
        try:
            with contextlib.suppress(aiomqtt.MqttError):
                await super().__aexit__(*error)
        finally:
            self._cut(self._disconnected)

    async def say(self, status: bytes) -> None:
        """Whether the daemon is there: retained, for everybody who asks later."""
        if self._status and not self.over:
            with contextlib.suppress(aiomqtt.MqttError):
                await self.publish(self._status, status, qos=1, retain=True)

    @property
    def over(self) -> bool:
        return self._disconnected.done()

    async def waiting(self, most: int) -> list[aiomqtt.Message]:
        """All waiting messages, at least one. Raises ``MqttError`` when there are none and the connection is over."""
        messages = [await anext(self.messages)]
        while len(messages) < most and not self._queue.empty():
            messages.append(self._queue.get_nowait())
        return messages

    def acknowledge(self, messages: list[aiomqtt.Message]) -> None:
        for message in messages:
            if message.qos and not self.over:
                self._client.ack(message.mid, message.qos)

    def ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) and not self.over:
            self._disconnected.set_exception(aiomqtt.MqttError(str(error)))

    def _cut(self, future: asyncio.Future[Any]) -> None:
        if future.done() and not future.cancelled():
            future.exception()  # retrieved, so that asyncio does not log it as never retrieved
        self._client._sock_close()
        if self._misc_task is not None:
            self._misc_task.cancel()
