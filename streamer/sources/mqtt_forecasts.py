"""The queue of messages for the MQTT broker: the latest forecast of each stream, the discovery messages for Home
Assistant, and the messages that clear a forgotten stream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, NoReturn

import numpy as np

from streamer.sensors.columns import Forecasts
from streamer.sources import SourceError
from streamer.sources.home_assistant import announcements, curve, curve_topic, daemon_announcement
from streamer.sources.mqtt_topics import MqttOptions, Watch, stream_topic

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


class _Unsent(NamedTuple):
    """A forecast that waits. ``curves``: topics and payloads of the attributes that Home Assistant shows beside it."""

    payload: bytes
    curves: tuple[tuple[str, bytes], ...]


class ForecastQueue:
    """Forecasts to be sent, and the discovery messages for Home Assistant."""

    def __init__(self, options: MqttOptions, watch: Watch) -> None:
        self._options, self._watch = options, watch
        self._waiting: dict[str, _Unsent] = {}  # by stream
        # discovered streams and targets, with the quantile that is shown
        self._levels: dict[tuple[str, str], str] = {}
        self._due: dict[tuple[str, str], None] = {}  # of them, those to be announced
        self._gone: dict[str, tuple[str, ...]] = {}  # forgotten streams and their targets, to be cleared
        self._filled = asyncio.Event()

    def put(self, forecasts: Forecasts) -> None:
        if not len(forecasts):
            return
        known = np.any(forecasts.known.reshape(len(forecasts), -1), axis=1)
        names = list(forecasts.names)
        latest = {names[row]: row for row in np.flatnonzero(known).tolist()}
        superseded = int(known.sum()) - len(latest)
        frames, finite = forecasts.to_dicts(), forecasts.finite().tolist()
        for name, row in latest.items():
            if not finite[row]:  # JSON has no infinity
                self._watch.forecasts("failed", 1)
                log.warning("a forecast can't be sent: it is not finite", extra={"stream": name})
                continue
            for target in forecasts.targets or ("",) if self._options.discovery else ():
                self._discover((name, target), forecasts.levels)
            self._gone.pop(name, None)  # the stream is back: its new messages replace the retained ones
            if name in self._waiting:
                superseded += 1
            elif len(self._waiting) >= self._options.max_unsent:
                del self._waiting[next(iter(self._waiting))]
                self._watch.forecasts("dropped", 1)
            curves = tuple(self._curves(forecasts, row)) if self._levels else ()
            self._waiting[name] = _Unsent(orjson.dumps(frames[row]), curves)
        self._watch.forecasts("superseded", superseded)
        self._filled.set()

    def _curves(self, forecasts: Forecasts, row: int) -> Iterator[tuple[str, bytes]]:
        name = forecasts.names[row]
        if not any((name, target) in self._levels for target in forecasts.targets or ("",)):
            return
        for target, attributes in curve(forecasts, row, self._options.max_curve_bytes):
            if (name, target) in self._levels:
                yield curve_topic(self._options.prefix, name, target), attributes

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

    def forget(self, stream: str, targets: Sequence[str]) -> None:
        """Drop a stream's waiting forecast, and queue the clearing of its retained messages."""
        self._waiting.pop(stream, None)
        for target in targets or ("",):
            self._levels.pop((stream, target), None)
            self._due.pop((stream, target), None)
        while len(self._gone) >= self._options.max_unsent:
            del self._gone[next(iter(self._gone))]
            self._watch.forecasts("uncleared", 1)
        self._gone[stream] = tuple(targets) or ("",)
        self._filled.set()

    async def send(self, post: Post) -> NoReturn:
        self.announce()
        if self._options.discovery:
            topic, config = daemon_announcement(self._options)
            await post([(topic, orjson.dumps(config))])
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._waiting or self._due or self._gone:
                if self._gone:
                    await self._clear(post)
                elif self._due:  # discovery messages go before the forecasts that they announce
                    due = list(islice(self._due, TOGETHER))
                    # where this fails, all are due again
                    await post([message for stream in due for message in self._announcements(stream)])
                    for stream in due:
                        self._due.pop(stream, None)
                else:
                    await self._forecasts(post)
                await asyncio.sleep(0)

    def _announcements(self, stream: tuple[str, str]) -> Iterator[tuple[str, bytes]]:
        name, target = stream
        for topic, config in announcements(self._options, name, self._levels[stream], target):
            yield topic, orjson.dumps(config)

    async def _clear(self, post: Post) -> None:
        """Clear forgotten streams: an empty retained message removes the retained message of its topic."""
        stream, targets = next(iter(self._gone.items()))
        topics = [stream_topic(self._options.prefix, stream)]
        for target in targets if self._options.discovery else ():
            topics += [topic for topic, _ in announcements(self._options, stream, target=target)]
            topics.append(curve_topic(self._options.prefix, stream, target))
        await post([(topic, b"") for topic in topics])
        if self._gone.get(stream) is targets:
            del self._gone[stream]

    async def _forecasts(self, post: Post) -> None:
        taken = {name: self._waiting.pop(name) for name in list(islice(self._waiting, TOGETHER))}
        try:
            if curves := [each for waiting in taken.values() for each in waiting.curves]:
                await post(curves)
            prefix = self._options.prefix
            failed = await post([(stream_topic(prefix, name), waiting.payload) for name, waiting in taken.items()])
        except BaseException:
            for name, waiting in taken.items():
                if name not in self._gone:  # forgotten meanwhile
                    self._waiting.setdefault(name, waiting)
            raise
        self._watch.forecasts("sent", len(taken) - failed)
        if failed:
            self._watch.forecasts("failed", failed)
            log.warning("forecasts are longer than the broker takes", extra={"forecasts": failed})
