"""One connection to a broker, fed with bytes: however they are cut, and whatever they are."""

from __future__ import annotations

import asyncio

import mqtt5
import pytest

from streamer.sources.mqtt_link import Link, MqttError
from streamer.sources.mqtt_topics import MqttOptions, Watch

QOS_0, QOS_1 = mqtt5.QoS.AT_MOST_ONCE, mqtt5.QoS.AT_LEAST_ONCE


def packets() -> list[mqtt5.PublishPacket]:
    """With lengths of one byte and of two, empty ones, and others between them."""
    return [
        mqtt5.PublishPacket("n/a", b"1", qos=QOS_1, packet_id=1),
        mqtt5.PublishPacket("n/b", b"", qos=QOS_0),
        mqtt5.PublishPacket("n/é", b"2" * 130, qos=QOS_1, packet_id=2, duplicate=True),
        mqtt5.PublishPacket("n/d", b"3", qos=QOS_0, user_properties=[("a", "b")]),
    ]


def test_a_stream_of_bytes_may_be_cut_anywhere() -> None:
    said = [packet.write() for packet in packets()]
    said.insert(2, mqtt5.PingRespPacket().write())
    data = b"".join(said)
    cuts = [[at] for at in range(len(data) + 1)] + [[*range(len(data))]]  # in two everywhere, and byte by byte

    async def main() -> None:
        for places in cuts:
            link = Link(MqttOptions(), Watch(), None)
            for begin, end in zip([0, *places], [*places, len(data)], strict=True):
                link.data_received(data[begin:end])
            assert not link.over
            found = await link.waiting(10)
            assert [(m.topic, m.payload, m.packet_id) for m in found] == [
                (m.topic, m.payload, m.packet_id) for m in packets()
            ], places

    asyncio.run(main())


def test_what_is_taken_together_is_bounded_in_bytes() -> None:
    """They are parsed in one go, in the event loop."""

    async def main() -> None:
        link = Link(MqttOptions(), Watch(), None)
        for id in range(1, 41):
            link.data_received(mqtt5.PublishPacket("n/a", bytes(60_000), qos=QOS_1, packet_id=id).write())
        for _ in range(8):
            assert len(await link.waiting(1000)) == 5
        assert not link.messages

    asyncio.run(main())


@pytest.mark.parametrize("qos", [QOS_0, QOS_1])
def test_what_waits_is_bounded_in_bytes_and_then_read_on(qos: mqtt5.QoS) -> None:
    async def main() -> None:
        dropped = 0

        def count(outcome: str, messages: int) -> None:
            nonlocal dropped
            dropped += messages

        options = MqttOptions(max_waiting_bytes=300_000, hold_seconds=0.01)
        link = Link(options, Watch(messages=count), None)
        for id in range(1, 31):  # a transport that is paused gives no more than it has read
            link.data_received(
                mqtt5.PublishPacket(
                    "n/a", bytes([id]) * 50_000, qos=qos, packet_id=id if qos == QOS_1 else None
                ).write()
            )
        assert sum(len(message.payload) for message in link.messages) <= 300_000 + 50_000
        await asyncio.sleep(0.05)  # it is held no longer
        assert sum(len(message.payload) for message in link.messages) <= 2 * 300_000 + 50_000
        found = []
        while len(found) + dropped < 30:
            found += [message.payload[0] for message in await asyncio.wait_for(link.waiting(1000), 10)]
        assert found == sorted(found)
        assert (dropped > 0) == (qos == QOS_0)

    asyncio.run(main())


@pytest.mark.parametrize(
    "data",
    [
        mqtt5.PublishPacket("", b"1", topic_alias=1).write(),  # none was allowed
        mqtt5.SubAckPacket(1, [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE]).write(),  # nobody has asked
        mqtt5.ConnAckPacket().write(),
    ],
)
def test_what_a_broker_must_not_send_ends_the_connection(data: bytes) -> None:
    async def main() -> None:
        link = Link(MqttOptions(), Watch(), None)
        link.data_received(data)
        with pytest.raises(MqttError, match="not MQTT 5"):
            await asyncio.wait_for(link.waiting(1), 10)

    asyncio.run(main())
