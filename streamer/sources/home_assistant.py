"""Home Assistant's MQTT discovery, without I/O: messages that announce a sensor's forecast, and its curve.

A sensor is a device with two entities: ``sensor``, the median one step ahead with the whole curve in its attributes,
and ``binary_sensor``, on while the last reading is an anomaly. A device belongs to the daemon's device
(``via_device``), whose one entity shows whether the daemon is connected. Without a connection all entities are
unavailable: the broker publishes the last will. See https://www.home-assistant.io/integrations/mqtt/.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from streamer import __version__
from streamer.sensors.columns import Forecasts
from streamer.sensors.digits import rounded
from streamer.sources.mqtt_topics import MqttOptions, clean, stream_topic

__all__ = ["OFFLINE", "ONLINE", "announcements", "availability_topic", "curve", "curve_topic", "daemon_announcement"]

ONLINE, OFFLINE = b"online", b"offline"
URL = "https://www.home-assistant.io/integrations/mqtt/"


def availability_topic(prefix: str) -> str:
    """The topic of ``online`` and ``offline``. No sensor's topic is below ``$``."""
    return f"{prefix}/$status"


def curve_topic(prefix: str, stream: str, target: str = "") -> str:
    """The topic of one entity's attributes, which hold the whole curve."""
    return f"{prefix}/$curve/{clean(f'{stream}.{target}' if target else stream)}"


def daemon_announcement(options: MqttOptions) -> tuple[str, dict[str, Any]]:
    """Topic and payload that announce the daemon's own device, to which the sensors' devices refer."""
    id = _id(options.prefix, "")
    return f"{options.discovery}/binary_sensor/{id}_connected/config", {
        "name": "connected",
        "unique_id": f"{id}_connected",
        "state_topic": availability_topic(options.prefix),
        "payload_on": ONLINE.decode(),
        "payload_off": OFFLINE.decode(),
        "device_class": "connectivity",
        "entity_category": "diagnostic",
        "device": {
            "identifiers": [options.prefix],
            "name": options.prefix,
            "manufacturer": "streamer",
            "model": "forecasting daemon",
            "sw_version": __version__,
        },
        "origin": _origin(),
    }


def announcements(
    options: MqttOptions, stream: str, level: str = "0.5", target: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Topics and payloads of the two entities of a stream, or of one of its targets. ``level``: the quantile that is
    shown. Topics and unique ids depend on the names alone: they are the same after a restart."""
    shown = f"{stream}.{target}" if target else stream
    id = _id(options.prefix, shown)
    group, what = _group(stream, target)
    topic, forecast = stream_topic(options.prefix, stream), "value_json"
    if target:
        forecast = f"value_json.targets[{json.dumps(target, ensure_ascii=False)}]"
    common: dict[str, Any] = {
        "state_topic": topic,
        "availability_topic": availability_topic(options.prefix),
        "payload_available": ONLINE.decode(),
        "payload_not_available": OFFLINE.decode(),
        "device": {
            "identifiers": [f"{options.prefix}/{group}"],
            "name": clean(group),
            "manufacturer": "streamer",
            "via_device": options.prefix,
        },
        "origin": _origin(),
    }
    yield (
        f"{options.discovery}/sensor/{id}/config",
        {
            "name": f"{what} forecast".strip(),
            "unique_id": id,
            # of several targets one may have no value yet
            "value_template": f"{{{{ {forecast}.quantiles['{level}'][0] if {forecast}.quantiles else 'None' }}}}",
            "state_class": "measurement",
            "json_attributes_topic": curve_topic(options.prefix, stream, target),
            **common,
        },
    )
    known, below = f"{forecast}.anomaly is not none", f"{forecast}.anomaly < {options.anomaly:g}"
    yield (
        f"{options.discovery}/binary_sensor/{id}/config",
        {
            "name": f"{what} anomaly".strip(),
            "unique_id": f"{id}_anomaly",
            # the first reading has no anomaly yet: Home Assistant shows "unknown"
            "value_template": f"{{{{ ('ON' if {below} else 'OFF') if {known} else 'None' }}}}",
            "device_class": "problem",
            **common,
        },
    )


def curve(forecasts: Forecasts, row: int, most: int) -> Iterator[tuple[str, bytes]]:
    """For each target (``""`` where there is one) the attributes of its entity, JSON of ``most`` bytes at most:
    ``from`` (the reading's time), ``value``, ``anomaly``, ``times`` of the steps ahead (ISO 8601, UTC; none without a
    known step) and ``quantiles``. Where they are longer the steps farthest ahead are left out, and counted in
    ``left_out``."""
    at, step = float(forecasts.times[row]), float(forecasts.steps[row])
    targets: Sequence[str] = forecasts.targets or ("",)
    shape = (len(forecasts), len(targets))
    known = forecasts.known.reshape(shape)[row]
    quantiles = forecasts.quantiles.reshape(*shape, *forecasts.quantiles.shape[-2:])[row]
    values, anomalies = forecasts.values.reshape(shape)[row], forecasts.anomalies.reshape(shape)[row]
    for number, target in enumerate(targets):
        if not known[number] or not np.isfinite(quantiles[number]).all():
            continue
        curves = rounded(quantiles[number]).T.tolist()
        times = [] if step != step else [_iso(at + ahead * step) for ahead in range(1, len(curves[0]) + 1)]
        value = float(values[number])
        steps = len(curves[0])
        while True:
            attributes = {
                "from": _iso(at),
                "value": None if value != value else value,
                "anomaly": float(anomalies[number]),
                "times": times[:steps],
                "quantiles": {
                    level: steps_of[:steps] for level, steps_of in zip(forecasts.levels, curves, strict=True)
                },
                "left_out": len(curves[0]) - steps,
            }
            text = json.dumps(attributes, separators=(",", ":")).encode()
            if len(text) <= most or not steps:
                break
            steps = min(steps - 1, steps * most // len(text))
        yield target, text


def _iso(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):  # no date: readings that were counted, and times of other clocks
        return f"{at:g}"


def _group(stream: str, target: str) -> tuple[str, str]:
    """The device of an entity, and the entity's name there: ``pump.temperature`` is the temperature of pump."""
    if target:
        return stream, clean(target)
    group, dot, what = stream.rpartition(".")
    return (group, clean(what)) if dot and group and what else (stream, "")


def _id(prefix: str, shown: str) -> str:
    """A unique id of letters, digits and ``_``; different for different names."""
    name = f"{prefix}/{shown}"
    readable = re.sub(r"[^a-zA-Z0-9]+", "_", name).strip("_")[:64]
    return f"{readable}_{hashlib.blake2s(name.encode(errors='replace'), digest_size=4).hexdigest()}".lstrip("_")


def _origin() -> dict[str, str]:
    return {"name": "streamer", "sw_version": __version__, "support_url": URL}
