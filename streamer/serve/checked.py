"""Checks of settings that need neither a model nor a socket: before anything is opened, and for ``--print-config``."""

from __future__ import annotations

from streamer.serve.access.exposure import ExposedError, check_exposure
from streamer.serve.readings.broker import options
from streamer.settings import Settings

__all__ = ["settings_trouble", "settings_warning"]


def settings_trouble(settings: Settings) -> str:
    """Why ``streamer serve`` refuses the settings; empty if it does not, as far as can be said without the models."""
    try:
        check_exposure(settings)
        if settings.mqtt_host or settings.mqtt_topics:
            options(settings)
    except ExposedError as error:
        return str(error)
    except ValueError as error:
        return f"settings mqtt_...: {error}"
    return ""


def settings_warning(settings: Settings) -> str:
    """What is allowed, and has no effect; empty if there is nothing such."""
    if settings.mqtt_topics and not settings.mqtt_host:
        return "mqtt_topics is set without mqtt_host: nothing is read from a broker; set mqtt_host, too"
    return ""
