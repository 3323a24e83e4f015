"""The daemon's MQTT broker: readings from it to the sensors, their forecasts back to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from typing import TYPE_CHECKING

from streamer.engine.model import ModelError
from streamer.sensors.columns import Batch
from streamer.sensors.host import NoSensorsError, Sensors
from streamer.sensors.worker import Ran
from streamer.serve.stream.connection import Outbox
from streamer.sources import SourceError
from streamer.sources.mqtt_topics import Options, Subscription, Watch

if TYPE_CHECKING:
    from streamer.settings import Settings
    from streamer.sources.mqtt import Mqtt

__all__ = ["Broker", "options"]

log = logging.getLogger(__name__)


class Broker:
    """Nothing at all without the setting ``mqtt_host``."""

    def __init__(self, sensors: Sensors, outbox: Outbox) -> None:
        self._sensors, self._outbox = sensors, outbox
        self._mqtt: Mqtt | None = None
        self._task: asyncio.Task[None] | None = None
        self._taking = asyncio.Lock()

    def check(self) -> None:
        """Once the sensors are loaded. Raises :class:`ModelError` for settings that can't be used."""
        settings, metrics = self._sensors.settings, self._sensors.metrics
        if not settings.mqtt_host:
            return
        if self._sensors.fleet is None:
            raise ModelError(f"mqtt_host is set, but {NoSensorsError()}")
        watch = Watch(
            connected=lambda yes: metrics.mqtt_connected.set(yes),
            reconnect=metrics.mqtt_reconnects.inc,
            messages=lambda outcome, count: metrics.mqtt_messages.labels(outcome).inc(count),
            forecasts=lambda outcome, count: metrics.mqtt_forecasts.labels(outcome).inc(count),
        )
        try:
            from streamer.sources.mqtt import Mqtt

            self._mqtt = Mqtt(options(settings), self._take, watch)
        except (ValueError, SourceError, OSError) as error:
            raise ModelError(f"settings mqtt_...: {error}") from error
        if settings.mqtt_publish:
            self._sensors.fleet.watch(self._said)

    def start(self) -> None:
        if self._mqtt is not None:
            self._task = asyncio.get_running_loop().create_task(self._mqtt.run())

    async def stop(self) -> None:
        """What was not acknowledged the broker keeps for the next run."""
        if self._task is not None:
            async with self._taking:  # what is on its way to the disk is acknowledged
                self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _take(self, batch: Batch) -> None:
        async with self._taking:
            receipt = await self._sensors.take(batch, "mqtt")
        if receipt.refused:  # it would come again for ever
            extra = {"readings": receipt.refused, "example": receipt.example}
            log.warning("readings of more than max_sensors sensors are left out", extra=extra)

    def _said(self, ran: Ran) -> None:
        """Called by lanes."""
        assert self._mqtt is not None
        self._outbox.put(partial(self._publish, ran))

    def _publish(self, ran: Ran) -> None:
        assert self._mqtt is not None
        self._mqtt.publish(self._sensors.said(ran))


def options(settings: Settings) -> Options:
    """Raises ``ValueError`` for what can't work."""
    return Options(
        subscriptions=tuple(Subscription.parse(line) for line in settings.mqtt_topics),
        host=settings.mqtt_host,
        port=settings.mqtt_port,
        username=settings.mqtt_username or None,
        password=settings.mqtt_password.get_secret_value() or None,
        tls=settings.mqtt_tls,
        ca_file=settings.mqtt_ca_file or None,
        client_id=settings.mqtt_client_id,
        session_seconds=settings.mqtt_session_seconds,
        max_delay=settings.mqtt_max_delay,
        max_message_bytes=settings.mqtt_max_message_bytes,
        max_batch=settings.mqtt_max_batch,
        max_unacknowledged=settings.mqtt_max_unacknowledged,
        max_waiting=settings.mqtt_max_waiting,
        prefix=settings.mqtt_prefix,
        max_unsent=settings.mqtt_max_unsent,
        discovery=settings.mqtt_discovery or None,
        max_discovered=settings.mqtt_max_discovered,
    )
