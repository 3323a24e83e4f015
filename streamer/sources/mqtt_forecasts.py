"""Forecasts that wait to go to the MQTT broker, the latest of each stream, as they are sent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice
from typing import NoReturn

import numpy as np

from streamer.sensors.columns import Forecasts
from streamer.sources import SourceError
from streamer.sources.mqtt_topics import MqttOptions, Watch, discovery, stream_topic

try:
    import orjson
except ImportError as error:
    raise SourceError("MQTT needs the package orjson: pip install 'streamer[sensors]'") from error

__all__ = ["ForecastQueue"]

log = logging.getLogger(__name__)

#: Messages that are given to the connection together.
TOGETHER = 64
#: Sends topics and payloads; returns how many were too long.
Post = Callable[[Iterable[tuple[str, bytes]]], Awaitable[int]]


class ForecastQueue:
    """Forecasts to be sent, and the discovery messages for Home Assistant."""

    def __init__(self, options: MqttOptions, watch: Watch) -> None:
        self._options, self._watch = options, watch
        self._waiting: dict[str, bytes] = {}  # payloads by stream
        # discovered streams and targets, with the quantile that is shown
        self._levels: dict[tuple[str, str], str] = {}
        self._due: dict[tuple[str, str], None] = {}  # of them, those to be announced
        self._filled = asyncio.Event()

    def put(self, forecasts: Forecasts) -> None:
        if not len(forecasts):
            return
        known = np.any(forecasts.known.reshape(len(forecasts), -1), axis=1)
        names = list(forecasts.names)
        latest = {names[row]: row for row in np.flatnonzero(known).tolist()}
        superseded = int(known.sum()) - len(latest)
        told, sound = forecasts.to_dicts(), forecasts.finite().tolist()
        for name, row in latest.items():
            if not sound[row]:  # JSON has no infinity
                self._watch.forecasts("failed", 1)
                log.warning("a forecast can't be sent: it is not finite", extra={"stream": name})
                continue
            for target in forecasts.targets or ("",) if self._options.discovery else ():
                self._discover((name, target), forecasts.levels)
            if name in self._waiting:
                superseded += 1
            elif len(self._waiting) >= self._options.max_unsent:
                del self._waiting[next(iter(self._waiting))]
                self._watch.forecasts("dropped", 1)
            self._waiting[name] = orjson.dumps(told[row])
        self._watch.forecasts("superseded", superseded)
        self._filled.set()

    def _discover(self, stream: tuple[str, str], levels: Sequence[str]) -> None:
        middle = min(levels, key=lambda level: abs(float(level) - 0.5))
        if stream not in self._levels and len(self._levels) >= self._options.max_discovered:
            self._watch.forecasts("undiscovered", 1)
        elif self._levels.get(stream) != middle:
            self._levels[stream] = middle
            self._due[stream] = None

    def announce(self) -> None:
        self._due = dict.fromkeys(self._levels)
        self._filled.set()

    async def send(self, post: Post) -> NoReturn:
        self.announce()
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._waiting or self._due:
                if self._due:  # discovery messages go before the forecasts that they announce
                    due = list(islice(self._due, TOGETHER))
                    await post([self._discovery(stream) for stream in due])  # where this fails, all are due again
                    for stream in due:
                        self._due.pop(stream, None)
                else:
                    await self._forecasts(post)
                await asyncio.sleep(0)

    def _discovery(self, stream: tuple[str, str]) -> tuple[str, bytes]:
        name, target = stream
        topic, config = discovery(self._options, name, self._levels[stream], target)
        return topic, orjson.dumps(config)

    async def _forecasts(self, post: Post) -> None:
        taken = {name: self._waiting.pop(name) for name in list(islice(self._waiting, TOGETHER))}
        try:
            failed = await post([(stream_topic(self._options.prefix, name), data) for name, data in taken.items()])
        except BaseException:
            for name, data in taken.items():
                self._waiting.setdefault(name, data)
            raise
        self._watch.forecasts("sent", len(taken) - failed)
        if failed:
            self._watch.forecasts("failed", failed)
            log.warning("forecasts are longer than the broker takes", extra={"forecasts": failed})
