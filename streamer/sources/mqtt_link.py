"""One connection to an MQTT 5 broker. mqtt5 reads and writes the packets; this module handles many of them at a time.

Only :meth:`Link.acknowledge` acknowledges a message of QoS 1. Messages wait in memory, in bounds: of QoS 1 the broker
sends no more than the receive maximum; while too many of QoS 0 wait, the connection is not read for a while, so that
the broker keeps them; after that they are dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn, Self, cast

from streamer.sources import SourceError
from streamer.sources.home_assistant import OFFLINE, availability_topic
from streamer.sources.mqtt_topics import MqttOptions, Watch

try:
    import mqtt5
except ImportError as error:
    raise SourceError("MQTT needs the package mqtt5: pip install 'streamer[sensors]'") from error

__all__ = ["Link", "Message", "MqttError"]

Message = mqtt5.PublishPacket
#: Unsent bytes beyond which the next forecasts wait for the broker.
UNSENT_BYTES = 2**18
#: Bytes that one read of the socket may hold beside a message.
READ_BYTES = 2**18
#: Bytes of payloads that are taken together, not counting the last one: the event loop reads them in one go.
TAKEN_BYTES = 2**18
#: Bytes of memory that a message takes beside its topic and payload.
MESSAGE = 200
SUBSCRIBE_ID = 1
PUBACK, PUBREC, EXACTLY_ONCE = mqtt5.PubAckPacket, mqtt5.PubRecPacket, mqtt5.QoS.EXACTLY_ONCE
PING = mqtt5.PingReqPacket().write()


class MqttError(Exception):
    """There is no connection to the broker, or it has ended. The message says why."""


class Link(asyncio.Protocol):
    """One connection. It is used once, since message ids are not valid on the next connection. ``over``: the connection
    has ended; messages that came before can still be taken."""

    def __init__(self, options: MqttOptions, watch: Watch, tls: ssl.SSLContext | None) -> None:
        self._options, self._watch, self._tls = options, watch, tls
        self._loop = asyncio.get_running_loop()
        self.messages: deque[Message] = deque()
        self._bytes = 0  # of these messages
        self._transport: asyncio.Transport | None = None
        self._unread = b""
        self._why: MqttError | None = None
        self._closed = asyncio.Event()
        self._filled = asyncio.Event()
        self._writable = asyncio.Event()
        self._answer: asyncio.Future[Any] | None = None
        self._asked: type | None = None  # kind of the answer
        self._full = self._dropping = False
        self._heard = True
        self._leaving = False  # what comes now is delivered again on the next connection
        self._retain, self._longest = options.retain, 2**28
        # without Home Assistant only forecasts are published below the prefix
        self._status = availability_topic(options.prefix) if options.discovery else None
        self._timers: dict[str, asyncio.TimerHandle] = {}

    async def __aenter__(self) -> Self:
        options = self._options
        try:
            async with asyncio.timeout(options.connect_seconds):
                await self._loop.create_connection(lambda: self, options.host, options.port, ssl=self._tls)
            found = await self._ask(self._connect(), mqtt5.ConnAckPacket)
        except BaseException as error:
            self._end(str(error))
            if isinstance(error, TimeoutError):
                raise MqttError("the broker does not answer") from error
            if isinstance(error, OSError):
                raise MqttError(str(error)) from error
            raise
        if int(found.reason_code):
            self._end(_reason(found))
            self._raise()
        self._retain &= found.retain_available
        self._longest = found.max_packet_size or self._longest
        seconds = options.keepalive_seconds if found.server_keep_alive is None else found.server_keep_alive
        if seconds:
            self._timers["beat"] = self._loop.call_later(seconds / 2, self._beat, seconds / 2)
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            if not self.over and self._transport is not None:
                await self._leave(self._transport)
        except TimeoutError:
            pass
        finally:
            self._end("it was closed")

    async def _leave(self, transport: asyncio.Transport) -> None:
        """Disconnect, and wait until the broker closes the connection: then it has read every acknowledgement. A broker
        may read our next connection first (mosquitto reads one packet of each at a time), which ends this one: it would
        deliver again what was acknowledged. Raises ``TimeoutError``."""
        transport.write(mqtt5.DisconnectPacket().write())
        self._leaving = True
        self._stop_timers()
        self._stop_reading(False)  # else the end is not seen
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._options.leave_seconds):
                await self._closed.wait()
        transport.close()  # once what was written before is sent
        async with asyncio.timeout(self._options.leave_seconds):
            await self._closed.wait()

    @property
    def over(self) -> bool:
        return self._why is not None

    async def subscribe(self, patterns: Sequence[str]) -> list[str]:
        """Subscribe to patterns, without retained messages. Returns for each why the broker refuses it; empty: it does
        not."""
        chosen = {"no_local": True, "retain_as_published": False, "retain_handling": mqtt5.RetainHandling.SEND_NEVER}
        filters = [mqtt5.TopicFilter(each, max_qos=mqtt5.QoS.AT_LEAST_ONCE, **cast(Any, chosen)) for each in patterns]
        try:
            found = await self._ask(mqtt5.SubscribePacket(SUBSCRIBE_ID, filters).write(), mqtt5.SubAckPacket)
        except TimeoutError as error:
            raise MqttError("the broker does not answer") from error
        return [_words(code) if int(code) >= 128 else "" for code in found.reason_codes]

    async def waiting(self, most: int) -> list[Message]:
        """Wait for messages; at least one, within :data:`TAKEN_BYTES`. Raises :class:`MqttError` if the connection has
        ended and no message waits."""
        while not self.messages:
            if self.over:
                self._raise()
            self._filled.clear()
            await self._filled.wait()
        taken, size = list[Message](), 0
        while self.messages and len(taken) < most and size < TAKEN_BYTES:
            taken.append(self.messages.popleft())
            size += len(taken[-1].payload)
            self._bytes -= _size(taken[-1])
        few = len(self.messages) <= self._options.max_waiting // 2
        if self._full and few and self._bytes <= self._options.max_waiting_bytes // 2:
            self._go_on()
        return taken

    def acknowledge(self, messages: Iterable[Message]) -> None:
        """Acknowledge messages, so that the broker does not deliver them again; after the end of the connection it does
        all the same. We never ask for QoS 2, but the session may hold such messages for an earlier owner of our client
        id."""
        packets = [
            PUBREC(id).write() if each.qos == EXACTLY_ONCE else PUBACK(id).write()
            for each in messages
            if (id := each.packet_id) is not None
        ]
        self._send(b"".join(packets))

    async def publish(self, messages: Iterable[tuple[str, bytes]]) -> int:
        """Publish topics and payloads with QoS 0. Returns how many were longer than the broker takes; these are left
        out. Waits while :data:`UNSENT_BYTES` are unsent. Raises :class:`MqttError`."""
        if not self._writable.is_set():
            try:
                async with asyncio.timeout(self._options.answer_seconds):
                    await self._writable.wait()
            except TimeoutError:
                raise MqttError("the broker does not read what is sent to it") from None
        if self.over:
            self._raise()
        packets = [mqtt5.PublishPacket(topic, data, retain=self._retain).write() for topic, data in messages]
        fitting = [packet for packet in packets if len(packet) <= self._longest]
        self._send(b"".join(fitting))
        return len(packets) - len(fitting)

    def publish_status(self, status: bytes) -> None:
        """Publish whether the daemon is online, retained for later subscribers. Does nothing without Home Assistant."""
        if self._status:
            self._send(mqtt5.PublishPacket(self._status, status, retain=True).write())

    def ended(self, task: asyncio.Task[Any]) -> None:
        """Done callback of a task: if the task failed, the connection ends."""
        if not task.cancelled() and (error := task.exception()):
            self._end(str(error))

    # -- from the transport --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(UNSENT_BYTES)
        self._writable.set()
        if self.over:  # given up meanwhile
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed.set()
        self._end(str(exc) if exc else "the broker has closed the connection")

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        if self._leaving:
            return
        self._unread = self._unread + data if self._unread else data
        self._read()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Read whole packets until too many messages wait; the rest of the bytes is kept."""
        most, unread, begin = self._options.max_waiting, memoryview(self._unread), 0
        most_bytes = self._options.max_waiting_bytes
        # messages of QoS 1 are never dropped, and some brokers send more of them than they may
        room = most + self._options.max_unacknowledged * self._dropping
        room_bytes = most_bytes * (1 + self._dropping)
        try:
            while len(self.messages) < room and self._bytes < room_bytes:
                packet, size = mqtt5.read(unread[begin:])
                begin += size
                if type(packet) is not Message:
                    self._control(packet)
                elif not packet.topic:
                    raise ValueError("a topic alias, and none was allowed")
                elif packet.packet_id is not None or (len(self.messages) < most and self._bytes < most_bytes):
                    self.messages.append(packet)
                    self._bytes += _size(packet)
                else:
                    self._watch.messages("dropped", 1)
        except IndexError:  # the rest of a packet is still to come
            if begin == 0 and len(unread) > self._options.max_message_bytes + READ_BYTES:
                self._end("the broker sends a packet that is too long (max_message_bytes)")
        except ValueError as error:
            self._end(f"the broker sends something that is not MQTT 5: {error}")
        else:
            self._hold()
        self._unread = bytes(unread[begin:])
        self._heard |= begin > 0
        if self.messages:
            self._filled.set()

    def _hold(self) -> None:
        """Stop reading for some time, since too many messages wait."""
        self._stop_reading(True)
        if not self._full:
            self._full = True
            self._timers["hold"] = self._loop.call_later(self._options.hold_seconds, self._drop)

    def _drop(self) -> None:
        self._dropping = True
        self._stop_reading(False)
        self._read()

    def _go_on(self) -> None:
        self._full = self._dropping = False
        self._timers.pop("hold").cancel()
        self._read()
        if not self._full:
            self._stop_reading(False)

    def _stop_reading(self, yes: bool) -> None:
        if self._transport is not None and not self._transport.is_closing():
            (self._transport.pause_reading if yes else self._transport.resume_reading)()

    def _control(self, packet: Any) -> None:
        if isinstance(packet, mqtt5.DisconnectPacket):
            self._end(_reason(packet))
        elif isinstance(packet, (mqtt5.ConnAckPacket, mqtt5.SubAckPacket)):
            if type(packet) is not self._asked:
                raise ValueError("an answer without a request")
            self._answered(packet)
        elif isinstance(packet, mqtt5.PubRelPacket):
            self._send(mqtt5.PubCompPacket(packet.packet_id).write())

    def _connect(self) -> bytes:
        options = self._options
        return mqtt5.ConnectPacket(
            options.client_id,
            username=options.username,
            password=None if options.password is None else options.password.encode(),
            keep_alive=options.keepalive_seconds,
            session_expiry_interval=options.session_seconds,
            receive_max=options.max_unacknowledged,
            max_packet_size=options.max_message_bytes,
            # the broker publishes it once the connection is lost: by kill -9, a power cut, a broken cable
            will=self._will(),
        ).write()

    def _will(self) -> mqtt5.Will | None:
        if not self._status:
            return None
        return mqtt5.Will(self._status, payload=OFFLINE, qos=mqtt5.QoS.AT_LEAST_ONCE, retain=True)

    async def _ask(self, packet: bytes, answer: type) -> Any:
        """Send a packet and return the broker's answer. Raises :class:`MqttError` and ``TimeoutError``."""
        self._answer, self._asked = self._loop.create_future(), answer
        self._send(packet)
        try:
            async with asyncio.timeout(self._options.answer_seconds):
                found = await self._answer
        finally:
            self._answer = self._asked = None
        return found if found is not None else self._raise()

    def _answered(self, packet: Any) -> None:
        """Hand the answer to :meth:`_ask`; ``None``: the connection has ended."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(packet)

    def _send(self, data: bytes) -> None:
        if data and not self.over and self._transport is not None:
            self._transport.write(data)

    def _beat(self, seconds: float) -> None:
        """Ping the broker; end the connection if nothing came since the last ping."""
        if not self._heard and not self._full:
            self._end(f"nothing came from the broker for {seconds:g} s")
            return
        self._heard = False
        self._send(PING)
        self._timers["beat"] = self._loop.call_later(seconds, self._beat, seconds)

    def _end(self, why: str) -> None:
        if self._why is None:
            self._why = MqttError(why)
        self._stop_timers()
        if self._transport is not None:
            self._transport.abort()
        self._filled.set()
        self._writable.set()
        self._answered(None)

    def _stop_timers(self) -> None:
        for timer in self._timers.values():
            timer.cancel()

    def _raise(self) -> NoReturn:
        raise MqttError(str(self._why))


def _size(message: Message) -> int:
    """Bytes of memory that a message takes; a topic's character counts as two."""
    return len(message.payload) + 2 * len(message.topic) + MESSAGE


def _reason(packet: Any) -> str:
    return packet.reason_str or _words(packet.reason_code)


def _words(code: Any) -> str:
    name: str = code.name
    return name.replace("_", " ").capitalize()
