"""Readings from a real broker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import mqtt5
import numpy as np
import pytest

from streamer.sources.mqtt import Subscription
from streamer.sources.mqtt_link import Link
from tests.daemon.mosquitto import Broker, Daemon, other, say, until
from tests.daemon.running import Proxy


def test_readings_arrive_and_what_is_no_reading_is_counted(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        daemon = Daemon()
        lines = "sensors/+/+/temperature", "tele/+/SENSOR time=Time ENERGY.Power", "zigbee2mqtt/+ temperature humidity"
        subscriptions = [Subscription.parse(line) for line in lines]
        async with daemon.running(broker.port, *subscriptions) as _, other(broker.port) as client:
            await client.publish("sensors/line1/pump/temperature", "76.2", 1)
            await client.publish("sensors/line1/pump/temperature", "hot", 1)
            await client.publish("sensors/line1/pump/temperature", "hotter", 0)
            await client.publish("tele/x/SENSOR", '{"Time":"1970-01-01T00:01:00","ENERGY":{"Power":12}}', 1)
            await client.publish("tele/x/SENSOR", '{"Time":"soon","ENERGY":{"Power":12}}', 2)
            await client.publish("zigbee2mqtt/hall", b"\xff", 1)
            await client.publish("zigbee2mqtt/hall", '{"temperature":21,"humidity":null}', 0)
            await client.publish("somewhere/else", "1", 1)
            await client.publish("sensors/line1/pump/temperature", "unavailable", 1)
            await until(lambda: sum(daemon.messages.values()) == 8)
        temperature = "sensors/line1/pump/temperature"
        rest = ["tele/x/SENSOR.ENERGY.Power", "zigbee2mqtt/hall.temperature", "zigbee2mqtt/hall.humidity"]
        assert daemon.names == [temperature, *rest, temperature]
        np.testing.assert_equal(daemon.values, [76.2, 12.0, 21.0, np.nan, np.nan])
        times = np.concatenate([batch.times for batch in daemon.batches])
        np.testing.assert_equal(times, [np.nan, 60.0, np.nan, np.nan, np.nan])
        assert daemon.messages == {"taken": 4, "number": 2, "time": 1, "encoding": 1}

    caplog.set_level(logging.WARNING)
    asyncio.run(main())
    unread = [record.__dict__["topic"] for record in caplog.records if "can't be read" in record.message]
    assert unread == ["sensors/line1/pump/temperature", "tele/x/SENSOR", "zigbee2mqtt/hall"]


def test_a_topic_with_spaces_and_a_bad_path_that_costs_only_itself(broker: Broker) -> None:
    async def main() -> None:
        daemon = Daemon()
        lines = '"living room/+" missing=85 "air temp" co2', "tele/+/SENSOR ENERGY.Power"
        subscriptions = [Subscription.parse(line, ("-127",)) for line in lines]
        async with daemon.running(broker.port, *subscriptions) as _, other(broker.port) as client:
            await client.publish("living room/a", '{"air temp":"hot","co2":420}', 1)
            await client.publish("living room/a", '{"air temp":85,"co2":-127}', 1)
            await client.publish("tele/x/SENSOR", '{"ENERGY":{"Power":[12,13]}}', 1)
            await until(lambda: sum(daemon.messages.values()) == 3)
        room, power = "living room/a", "tele/x/SENSOR.ENERGY.Power"
        assert daemon.names == [f"{room}.co2", f"{room}.air temp", f"{room}.co2", f"{power}.0", f"{power}.1"]
        np.testing.assert_equal(daemon.values, [420, np.nan, np.nan, 12, 13])
        assert daemon.messages == {"taken": 2, "partly": 1}

    asyncio.run(main())


def test_complaints_are_bounded(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        daemon = Daemon()
        async with daemon.running(broker.port, max_complaints=2), other(broker.port) as client:
            for topic in range(5):
                await client.publish(f"n/{topic}", "bad", 1)
            await until(lambda: daemon.messages["number"] == 5)

    asyncio.run(main())
    assert sum("can't be read" in record.message for record in caplog.records) == 2


@pytest.mark.parametrize(("unacknowledged", "batch"), [(5, 3), (3, 50)])
def test_what_waits_is_taken_together_and_the_broker_waits_with_the_rest(
    broker: Broker, unacknowledged: int, batch: int
) -> None:
    async def main() -> None:
        daemon = Daemon()
        daemon.open.clear()
        async with daemon.running(broker.port, max_unacknowledged=unacknowledged, max_batch=batch):
            await say(broker.port, range(100))
            daemon.open.set()
            await until(lambda: len(daemon.values) >= 100)
        assert daemon.values == list(range(100))
        assert max(map(len, daemon.batches)) <= batch
        assert len(daemon.batches[0]) <= unacknowledged  # later mosquitto (2.0.11) sends more than it may
        assert daemon.messages == {"taken": 100}

    asyncio.run(main())


def seen_links(monkeypatch: pytest.MonkeyPatch) -> list[Link]:
    """All connections from now on."""
    links: list[Link] = []

    class Seen(Link):
        def __init__(self, *args: Any):
            super().__init__(*args)
            links.append(self)

    monkeypatch.setattr("streamer.sources.mqtt.Link", Seen)
    return links


def test_nothing_is_acknowledged_before_it_is_taken(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    links = seen_links(monkeypatch)

    async def main() -> None:
        daemon = Daemon()
        daemon.open.clear()
        async with Proxy.to(broker.port) as proxy:
            port = proxy._server.sockets[0].getsockname()[1]
            async with daemon.running(port, max_batch=1):
                await say(broker.port, range(10))
                await until(lambda: daemon.asked == 1)
                await until(lambda: len(links[0].messages) == 9)
                proxy.cut()
                await until(lambda: links[0].over)
                daemon.open.set()
                await until(lambda: daemon.values[-1:] == [9])
            first, *_ = daemon.batches  # it was taken, but that could not be said any more
            assert daemon.values == [*first.values, *range(10)]
            assert daemon.messages["returned"] == 10 - len(first)
            seen = len(daemon.values)
            async with daemon.running(port):  # now they are acknowledged
                await say(broker.port, range(10, 11))
                await until(lambda: len(daemon.values) > seen)
            assert daemon.values[seen:] == [10]

    asyncio.run(main())


def test_acknowledgements_reach_a_busy_broker_before_the_next_connection(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = seen_links(monkeypatch)

    async def main() -> None:
        daemon = Daemon()
        daemon.open.clear()
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(daemon.running(broker.port, max_batch=1))
            await say(broker.port, range(10))
            await until(lambda: len(links[0].messages) == 9)
            broker.pause()
            asyncio.get_running_loop().call_later(0.5, broker.resume)
            daemon.open.set()
            await until(lambda: daemon.values[-1:] == [9])
        async with daemon.running(broker.port):
            await say(broker.port, range(10, 11))
            await until(lambda: daemon.values[-1:] == [10])
        assert daemon.values == list(range(11))

    asyncio.run(main())


def test_a_broker_that_hangs_does_not_keep_us(broker: Broker) -> None:
    async def main() -> None:
        daemon = Daemon()
        async with daemon.running(broker.port, leave_seconds=0.1):
            await say(broker.port, range(1))
            await until(lambda: daemon.values == [0])
            broker.pause()
        async with daemon.trying(broker.port):
            broker.resume()
            await until(lambda: daemon.connected)

    asyncio.run(main())


@pytest.mark.parametrize("most", [1000, 3])
def test_what_could_not_be_taken_comes_again(broker: Broker, most: int, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        daemon = Daemon()
        daemon.failures = 3
        async with daemon.running(broker.port, max_batch=most):
            await say(broker.port, range(50))
            await until(lambda: len(daemon.values) >= 50)
            assert daemon.values == list(range(50))
            assert daemon.reconnects == 3
            assert daemon.messages["taken"] == 50
            assert daemon.messages["returned"] >= 3

    asyncio.run(main())
    said = [record.__dict__["reason"] for record in caplog.records if "no connection" in record.message]
    assert said == ["readings are not taken: disk full"] * 3


def test_what_one_model_can_not_take_comes_again_alone(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readings without a time would be run twice if they came again."""
    links = seen_links(monkeypatch)

    async def main() -> None:
        daemon = Daemon()
        daemon.models, daemon.failing = {"sensors": (), "tank": ("inflow",)}, {"tank"}
        daemon.open.clear()
        lines = "n/#", "tanks/# model=tank"
        async with daemon.running(broker.port, *map(Subscription.parse, lines)), other(broker.port) as client:
            await client.publish("n/x", "1", 1)
            await until(lambda: daemon.asked == 1)
            await client.publish("n/x", "2", 1)
            await client.publish("tanks/t", '{"inflow":3}', 1)
            await client.publish("tanks/t", '{"inflow":4}', 0)
            await client.publish("n/x", "5", 1)
            await until(lambda: len(links[0].messages) >= 4)
            daemon.open.set()
            await until(lambda: 3 in daemon.values)
            await client.publish("n/x", "6", 1)
            await until(lambda: 6 in daemon.values)
        assert daemon.values == [1, 2, 5, 3, 6]
        assert daemon.reconnects == 1
        assert daemon.messages == {"taken": 5, "returned": 1, "lost": 1}

    asyncio.run(main())


def test_what_came_with_qos_0_and_could_not_be_taken_is_lost_and_counted(broker: Broker) -> None:
    async def main() -> None:
        daemon = Daemon()
        daemon.failures = 1
        async with daemon.running(broker.port):
            await say(broker.port, range(1), qos=0)
            await until(lambda: daemon.connections == 2)
            await say(broker.port, range(1, 2), qos=0)
            await until(lambda: daemon.values == [1])
        assert daemon.messages == {"lost": 1, "returned": 0, "taken": 1}

    asyncio.run(main())


def test_qos_0_beyond_the_bound_is_dropped_and_qos_1_is_not(broker: Broker) -> None:
    async def main() -> None:
        daemon = Daemon()
        daemon.open.clear()
        async with daemon.running(broker.port, max_waiting=4, hold_seconds=0.01):
            await say(broker.port, range(1), qos=1)
            await until(lambda: daemon.asked == 1)
            await say(broker.port, range(1, 20), qos=0)
            await say(broker.port, range(20, 30), qos=1)
            await until(lambda: daemon.messages["dropped"] == 15)
            daemon.open.set()
            await until(lambda: len(daemon.values) == 15)
        assert daemon.values == [*range(5), *range(20, 30)]

    asyncio.run(main())


def test_what_comes_while_we_are_down_is_kept(broker: Broker) -> None:
    async def main() -> None:
        daemon = Daemon()
        async with daemon.running(broker.port):
            pass
        await say(broker.port, range(30))
        await asyncio.to_thread(broker.stop)
        await asyncio.to_thread(broker.start)
        async with daemon.running(broker.port):
            await until(lambda: len(daemon.values) >= 30)
        assert daemon.values == list(range(30))

    asyncio.run(main())


def test_a_broker_that_restarts(broker: Broker) -> None:
    async def main() -> None:
        daemon = Daemon()
        async with daemon.running(broker.port):
            await say(broker.port, range(3))
            await until(lambda: len(daemon.values) == 3)
            await asyncio.to_thread(broker.stop)
            await until(lambda: not daemon.connected and daemon.reconnects > 2)
            await asyncio.to_thread(broker.start)
            await until(lambda: daemon.connected)
            await say(broker.port, range(3, 6))
            await until(lambda: daemon.values[-1] == 5)
        # at least once: the last acknowledgements may not have reached the broker before it went
        assert list(dict.fromkeys(daemon.values)) == list(range(6))
        assert daemon.connections == 2

    asyncio.run(main())


def test_topics_of_former_settings_are_acknowledged_and_counted(broker: Broker) -> None:
    async def main() -> None:
        daemon = Daemon()
        async with daemon.running(broker.port):
            pass
        await say(broker.port, range(2))
        async with daemon.running(broker.port, Subscription.parse("m/+")):
            await say(broker.port, range(1), topic="m/a")
            await until(lambda: daemon.messages == {"unmatched": 2, "taken": 1})
        assert daemon.names == ["m/a"]

    asyncio.run(main())


def test_what_a_former_client_wanted_exactly_once_is_taken_and_does_not_come_again(broker: Broker) -> None:
    """A session goes by the client's id alone."""
    connect = mqtt5.ConnectPacket("streamer", session_expiry_interval=1000)
    subscribe = mqtt5.SubscribePacket(1, [mqtt5.TopicFilter("n/#", max_qos=mqtt5.QoS.EXACTLY_ONCE)])

    async def former() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
        for packet in (connect, subscribe, mqtt5.DisconnectPacket()):
            writer.write(packet.write())
        while await reader.read(2**16):
            pass
        writer.close()

    async def main() -> None:
        daemon = Daemon()
        await former()
        await say(broker.port, range(3), qos=2)
        for _ in range(2):
            async with daemon.running(broker.port):
                await say(broker.port, range(10, 11))
                await until(lambda: daemon.values[-1:] == [10] and daemon.values.count(10) == daemon.connections)
        assert daemon.values == [0, 1, 2, 10, 10]
        assert (daemon.connections, daemon.reconnects) == (2, 0)

    asyncio.run(main())


def test_old_and_overlong_messages_are_not_sent(broker: Broker) -> None:
    async def main() -> None:
        daemon = Daemon()
        async with other(broker.port) as client:
            await client.publish("n/old", "1", 1, retain=True)
            async with daemon.running(broker.port, max_message_bytes=1000):
                await client.publish("n/long", "1" * 2000, 1)
                await client.publish("n/new", "2", 1, retain=True)
                await until(lambda: "n/new" in daemon.names)
        assert daemon.names == ["n/new"]

    asyncio.run(main())


def test_what_comes_faster_than_it_is_taken_waits_at_the_broker(broker: Broker) -> None:
    async def main() -> None:
        daemon = Daemon()
        daemon.open.clear()
        async with daemon.running(broker.port, max_waiting=4, hold_seconds=60.0):
            await say(broker.port, range(1), qos=1)
            await until(lambda: daemon.asked == 1)
            await say(broker.port, range(1, 200), qos=0)
            await say(broker.port, range(200, 300), qos=1)
            daemon.open.set()
            await until(lambda: len(daemon.values) == 300)
        # a broker keeps the order within a quality of service, not between two
        assert [value for value in daemon.values if 1 <= value < 200] == list(range(1, 200))
        assert [value for value in daemon.values if not 1 <= value < 200] == [0, *range(200, 300)]
        assert daemon.messages == {"taken": 300}
        assert daemon.connections == 1

    asyncio.run(main())


@pytest.mark.parametrize(
    "answer",
    [b"\x20\x03\x00\x00", b"\x00\x00", b"\x20\x03\x00\x87\x00", b"\x20\x7f" + bytes(127), b"\x90\x04\x00\x01\x00\x01"],
)
def test_an_answer_that_is_none_is_no_connection(answer: bytes) -> None:
    async def main() -> None:
        daemon, gone = Daemon(), 0

        async def strange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal gone
            writer.write(answer)
            while await reader.read(2**16):
                pass
            gone += 1
            writer.close()

        server = await asyncio.start_server(strange, "127.0.0.1", 0)
        async with server, daemon.trying(server.sockets[0].getsockname()[1], answer_seconds=0.2):
            await until(lambda: gone >= 2)
        assert not daemon.connections

    asyncio.run(main())


def test_a_broker_that_falls_silent_is_left(broker: Broker) -> None:
    async def main() -> None:
        daemon = Daemon()
        async with Proxy.to(broker.port, last=b"\xd0\x00") as proxy:  # the answer to a ping
            port = proxy._server.sockets[0].getsockname()[1]
            async with daemon.running(port, keepalive_seconds=1):
                await until(lambda: daemon.connections == 2)
        assert daemon.reconnects >= 1

    asyncio.run(main())
