"""What waits to be sent to the broker."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable

import pytest

from streamer.sources.mqtt_forecasts import ForecastQueue
from streamer.sources.mqtt_topics import MqttOptions, Watch
from tests.serve.test_mqtt_topics import told


def test_a_sensor_forgotten_while_its_forecast_fails_to_be_sent_stays_gone() -> None:
    async def main() -> None:
        queue, sent = ForecastQueue(MqttOptions(), Watch()), dict[str, bytes]()
        done = asyncio.Event()

        async def fails(messages: Iterable[tuple[str, bytes]]) -> int:
            if list(messages):
                queue.forget("a", ())
                raise OSError("cut")
            return 0

        async def works(messages: Iterable[tuple[str, bytes]]) -> int:
            sent.update(messages)
            if "streamer/b" in sent:
                done.set()
            return 0

        queue.put(told(a=[1.0, 2.0], b=[1.0, 2.0]))
        with pytest.raises(OSError, match="cut"):
            await queue.send(fails)
        sender = asyncio.create_task(queue.send(works))
        await asyncio.wait_for(done.wait(), 60)
        sender.cancel()
        assert sent["streamer/a"] == b""

    asyncio.run(main())


def test_what_can_not_be_cleared_is_counted() -> None:
    counts = Counter[str]()
    watch = Watch(forecasts=lambda outcome, count: counts.update({outcome: count}))
    queue = ForecastQueue(MqttOptions(max_unsent=2), watch)
    for name in ("a", "b", "c"):
        queue.forget(name, ())
    assert counts["uncleared"] == 1
