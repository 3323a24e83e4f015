"""Connects the sensors to an MQTT broker: readings come in, forecasts go out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from streamer.engine.model import ModelError
from streamer.names import name_of, owner_of
from streamer.sensors.choice import NoSensorsError
from streamer.sensors.columns import ReadingBatch, StepResult
from streamer.sensors.host import Sensors
from streamer.sensors.ingest import Fleet
from streamer.sensors.owners import only, owned_by, shown
from streamer.sensors.writes import BusyError
from streamer.serve.readings.results import ResultQueue
from streamer.sources import SourceError
from streamer.sources.mqtt_topics import MqttOptions, Subscription, Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from streamer.settings import Settings
    from streamer.sources.mqtt import Mqtt

__all__ = ["Broker", "options"]

log = logging.getLogger(__name__)


class Calls(Protocol):
    def put(self, call: Callable[[], None], /) -> None:
        """Have the event loop call a function soon. Thread-safe."""


class Broker:
    """Does nothing without the setting ``mqtt_host``. ``calls`` passes calls from lanes to the event loop."""

    def __init__(self, sensors: Sensors, calls: Calls) -> None:
        self._sensors, self._calls = sensors, calls
        self._results = ResultQueue(calls.put, self._publish, self._drop)
        self._mqtt: Mqtt | None = None
        self._task: asyncio.Task[None] | None = None
        self._taking = asyncio.Lock()
        self._leaving = asyncio.Event()
        self._unread: Mapping[str, str] = {}

    def check(self) -> None:
        """Check the settings, after the sensors are loaded. Raises :class:`ModelError` for invalid ones."""
        settings, metrics = self._sensors.settings, self._sensors.metrics
        if not settings.mqtt_host:
            return
        watch = Watch(
            connected=lambda yes: metrics.mqtt_connected.set(yes),
            reconnect=metrics.mqtt_reconnects.inc,
            messages=lambda outcome, count: metrics.mqtt_messages.labels(outcome).inc(count),
            forecasts=lambda outcome, count: metrics.mqtt_forecasts.labels(outcome).inc(count),
            refused=self._refused,
        )
        try:
            from streamer.sources.mqtt import Mqtt

            chosen = options(settings)
            models = {name: layout.variables for name, layout in self._sensors.layouts().items()}
            for subscription in chosen.subscriptions:
                if subscription.model not in (None, *models):
                    self._sensors.choose(subscription.model)
            if not models:
                self._sensors.served()  # raises, since there are none
            self._mqtt = Mqtt(chosen, self._take, watch, models)
        except NoSensorsError as error:
            raise ModelError(f"mqtt_host is set, but {error}") from error
        except (ValueError, SourceError, OSError) as error:
            raise ModelError(f"settings mqtt_...: {error}") from error
        if settings.mqtt_publish:
            self._sensors.watch(self._results.put)
            self._sensors.watch_forgotten(lambda fleet, name: self._calls.put(lambda: self._forget(fleet, name)))

    def start(self) -> None:
        if self._mqtt is not None:
            self._task = asyncio.get_running_loop().create_task(self._mqtt.run())

    async def stop(self) -> None:
        """Disconnect; the broker keeps what was not acknowledged for the next run."""
        if self._task is not None:
            self._leaving.set()
            async with self._taking:  # acknowledge what is being written to the disk
                self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def trouble(self) -> str | None:
        """What the broker does not let us read; ``None`` if all goes well."""
        if not self._unread:
            return None
        return "the MQTT broker refuses " + ", ".join(f"{topic} ({why})" for topic, why in self._unread.items())

    def _refused(self, patterns: Mapping[str, str]) -> None:
        self._unread = patterns
        self._sensors.metrics.mqtt_refused.set(len(patterns))

    async def _take(self, batches: Mapping[str, ReadingBatch]) -> dict[str, Exception]:
        """Take batches by model, waiting where there is no room for one; returns errors by model. The other batches are
        on the disk and acknowledged."""
        failed: dict[str, Exception] = {}
        async with self._taking:
            left = dict(batches)
            while left:
                busy: dict[str, BusyError] = {}
                for model, batch in left.items():
                    try:
                        await self._write(model, batch)
                    except BusyError as error:
                        busy[model] = error
                    except Exception as error:
                        failed[model] = error
                if busy and await self._left_within(max(each.retry_after for each in busy.values())):
                    return failed | busy
                left = {model: left[model] for model in busy}
        return failed

    async def _write(self, model: str, batch: ReadingBatch) -> None:
        own = owned_by(self._sensors.settings.mqtt_owner, batch)
        receipt = await self._sensors.take(own, "mqtt", self._sensors.choose(model))
        for refusal in receipt.refusals:  # left out: unacknowledged, they would come again for ever
            reason = refusal.text(self._sensors.settings.max_sensors)
            log.warning("readings are left out", extra={"reason": reason})

    async def _left_within(self, seconds: float) -> bool:
        """Wait for ``seconds``; true at once if we are to disconnect."""
        try:
            async with asyncio.timeout(seconds):
                return await self._leaving.wait()
        except TimeoutError:
            return False

    def _drop(self, fleet: Fleet, result: StepResult) -> None:
        """Called by lanes for results that were dropped because the event loop was behind."""
        self._sensors.metrics.mqtt_forecasts.labels("dropped").inc(len(result.slots))

    def _forget(self, fleet: Fleet, name: str) -> None:
        """Clear the discovery and the retained messages of a forgotten sensor. If another model has a sensor of this
        name, that one loses the model's prefix: its prefixed topics are cleared, too."""
        if self._mqtt is None or owner_of(name) != self._sensors.settings.mqtt_owner:
            return
        fleets = list(self._sensors.fleets.values())
        at = fleets.index(fleet)
        self._mqtt.forget(self._public(fleet, name, fleets[:at]), fleet.layout.targets or ())
        if not any(name in each.slots for each in fleets[:at]):
            follows = next((each for each in fleets[at + 1 :] if name in each.slots), None)
            if follows is not None:
                self._mqtt.forget(_prefixed(follows, name), follows.layout.targets or ())

    def _public(self, fleet: Fleet, name: str, before: Sequence[Fleet]) -> str:
        """A sensor's name at the broker; with its model's name in front if a model ``before`` has one of this name."""
        return _prefixed(fleet, name) if any(name in each.slots for each in before) else name_of(name)

    def _publish(self, fleet: Fleet, result: StepResult) -> None:
        assert self._mqtt is not None
        own = only(self._sensors.settings.mqtt_owner, result.names.tolist())
        if len(own) < len(result.names):  # sensors of other owners are not published
            rows = np.array(own, np.intp)
            parts = {f.name: getattr(result, f.name)[rows] for f in fields(result)}
            result = StepResult(**parts)
        forecasts = self._sensors.current(fleet, result)
        fleets = list(self._sensors.fleets.values())
        before = fleets[: fleets.index(fleet)]
        public = [self._public(fleet, name, before) for name in forecasts.names] if before else None
        forecasts = shown(forecasts)
        self._mqtt.publish(forecasts if public is None else replace(forecasts, names=public))


def _prefixed(fleet: Fleet, name: str) -> str:
    return f"{fleet.model.manifest.name}/{name_of(name)}"


def options(settings: Settings) -> MqttOptions:
    """The options from the settings. Raises ``ValueError`` for invalid ones."""
    return MqttOptions(
        subscriptions=tuple(Subscription.parse(line, settings.missing) for line in settings.mqtt_topics),
        host=settings.mqtt_host,
        port=settings.mqtt_port,
        username=settings.mqtt_username or None,
        password=settings.mqtt_password.get_secret_value() or None,
        tls=settings.mqtt_tls,
        ca_file=settings.mqtt_ca_file or None,
        cert_file=settings.mqtt_cert_file or None,
        key_file=settings.mqtt_key_file or None,
        client_id=settings.mqtt_client_id,
        session_seconds=settings.mqtt_session_seconds,
        max_delay=settings.mqtt_max_delay,
        max_message_bytes=settings.mqtt_max_message_bytes,
        max_batch=settings.mqtt_max_batch,
        max_unacknowledged=settings.mqtt_max_unacknowledged,
        max_waiting=settings.mqtt_max_waiting,
        max_waiting_bytes=settings.mqtt_max_waiting_bytes,
        hold_seconds=settings.mqtt_hold_seconds,
        prefix=settings.mqtt_prefix,
        max_unsent=settings.mqtt_max_unsent,
        discovery=settings.mqtt_discovery or None,
        max_discovered=settings.mqtt_max_discovered,
        anomaly=settings.mqtt_anomaly,
        max_curve_bytes=settings.mqtt_max_curve_bytes,
    )
