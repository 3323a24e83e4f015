"""What is to be sent to the broker: forecasts, what announces them, and what takes them back."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn

import numpy as np

from streamer.sensors.columns import Forecasts
from streamer.sources.home_assistant import announcements, curve, curve_topic, daemon_announcement
from streamer.sources.mqtt_topics import MqttOptions, Watch, alone, stream_topic

__all__ = ["ForecastQueue"]

log = logging.getLogger(__name__)


class ForecastQueue:
    """Forecasts to be sent, the latest of each stream, and the discovery messages for Home Assistant."""

    def __init__(self, options: MqttOptions, watch: Watch) -> None:
        self._options, self._watch = options, watch
        self._waiting: dict[str, Forecasts] = {}  # of one reading each
        # discovered streams and targets, with the quantile that is shown
        self._levels: dict[tuple[str, str], str] = {}
        self._due: dict[tuple[str, str], None] = {}  # of them, those to be announced
        self._gone: dict[str, tuple[str, ...]] = {}  # forgotten streams and their targets, to be cleared
        self._filled = asyncio.Event()

    def put(self, forecasts: Forecasts) -> None:
        if not len(forecasts):
            return
        known: list[bool] = np.any(forecasts.known.reshape(len(forecasts), -1), axis=1).tolist()
        latest = {name: row for row, name in enumerate(forecasts.names) if known[row]}
        superseded = sum(known) - len(latest)
        for name, row in latest.items():
            for target in forecasts.targets or ("",):
                self._discover((name, target), forecasts.levels)
            self._gone.pop(name, None)  # it is back: what it says now is put in the place of what was retained
            if name in self._waiting:
                superseded += 1
            elif len(self._waiting) >= self._options.max_unsent:
                del self._waiting[next(iter(self._waiting))]
                self._watch.forecasts("dropped", 1)
            self._waiting[name] = alone(forecasts, row)
        self._watch.forecasts("superseded", superseded)
        self._filled.set()

    def _discover(self, stream: tuple[str, str], levels: Sequence[str]) -> None:
        if not self._options.discovery:
            return
        middle = min(levels, key=lambda level: abs(float(level) - 0.5))
        if stream not in self._levels and len(self._levels) >= self._options.max_discovered:
            self._watch.forecasts("undiscovered", 1)
        elif self._levels.get(stream) != middle:
            self._levels[stream] = middle
            self._due[stream] = None

    def announce(self) -> None:
        self._due = dict.fromkeys(self._levels)
        self._filled.set()

    def forget(self, stream: str, targets: Sequence[str]) -> None:
        """Its forecasts that wait are dropped, and what is retained of it is to be cleared."""
        self._waiting.pop(stream, None)
        for target in targets or ("",):
            self._levels.pop((stream, target), None)
            self._due.pop((stream, target), None)
        while len(self._gone) >= self._options.max_unsent:
            del self._gone[next(iter(self._gone))]
        self._gone[stream] = tuple(targets) or ("",)
        self._filled.set()

    async def send(self, post: Callable[[str, bytes], Awaitable[None]]) -> NoReturn:
        self.announce()
        if self._options.discovery:
            topic, config = daemon_announcement(self._options)
            await post(topic, json.dumps(config).encode())
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._waiting or self._due or self._gone:
                if self._gone:
                    await self._clear(post)
                elif self._due:  # discovery messages go before the forecasts that they announce
                    stream, _ = self._due.popitem()  # where this fails, all are due with the next connection
                    name, target = stream
                    for topic, config in announcements(self._options, name, self._levels[stream], target):
                        await post(topic, json.dumps(config).encode())
                else:
                    await self._forecast(post)

    async def _clear(self, post: Callable[[str, bytes], Awaitable[None]]) -> None:
        """An empty retained message takes back what is retained on its topic."""
        stream, targets = next(iter(self._gone.items()))
        for target in targets if self._options.discovery else ():
            for topic, _ in announcements(self._options, stream, target=target):
                await post(topic, b"")
            await post(curve_topic(self._options.prefix, stream, target), b"")
        await post(stream_topic(self._options.prefix, stream), b"")
        if self._gone.get(stream) is targets:
            del self._gone[stream]

    async def _forecast(self, post: Callable[[str, bytes], Awaitable[None]]) -> None:
        forecasts = self._waiting.pop(stream := next(iter(self._waiting)))
        try:
            payload = json.dumps(forecasts.to_dict(0), allow_nan=False).encode()
            for target, attributes in curve(forecasts, 0, self._options.max_curve_bytes):
                if (stream, target) in self._levels:
                    await post(curve_topic(self._options.prefix, stream, target), attributes)
            await post(stream_topic(self._options.prefix, stream), payload)
            self._watch.forecasts("sent", 1)
        except ValueError as error:  # JSON has no infinity
            self._watch.forecasts("failed", 1)
            log.warning("a forecast can't be sent", extra={"stream": stream, "reason": str(error)})
        except BaseException:
            self._waiting.setdefault(stream, forecasts)
            raise
