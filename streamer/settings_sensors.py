"""Settings of sensors and of requests with readings: a part of :class:`streamer.settings.Settings`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, NoDecode

__all__ = ["SensorSettings"]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class SensorSettings(BaseSettings):
    """Sensors, and the requests with their readings. Sizes in bytes, times in seconds."""

    max_sensors: Count = Field(2048, description="sensors; readings of more are refused, and counted")
    sensor_step: Seconds = Field(0.0, description="time from one reading of a sensor to the next; 0: each one's own")
    missing: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="texts that stand for a missing value, such as -999, besides empty, NaN, NA and null"
    )
    max_gap_steps: Annotated[int, Field(ge=0, le=100_000)] = Field(
        240, description="missing steps that are run for one gap of a sensor; after a longer gap nothing is scored"
    )
    gap_steps_per_reading: Annotated[int, Field(ge=0, le=100_000)] = Field(
        16,
        description="missing steps that are run for each reading of a sensor in the long run; 8 gaps of max_gap_steps"
        " are free, then a gap is filled as far as its readings have earned",
    )
    max_scored_steps: Annotated[int, Field(ge=1, le=64)] = Field(
        8, description="steps ahead, spread evenly over the horizon, at which a sensor's forecasts are scored"
    )
    max_waiting_readings: Count = Field(
        100_000,
        description="readings taken and not yet run; those of one sensor count for at most an eighth of it; a request"
        " that would exceed it is answered 503",
    )
    max_waiting_seconds: Positive = Field(
        10.0,
        description="time that running all waiting readings would take, as measured; while it takes longer, requests"
        " are answered 503",
    )
    max_body_bytes: Annotated[int, Field(ge=1024, le=2**30)] = Field(
        16 * 2**20, description="largest body of a request that brings readings; a larger one is answered 413"
    )
    max_unpacked_bytes: Annotated[int, Field(ge=1024, le=2**32)] = Field(
        64 * 2**20, description="largest body of readings, rows or tensors once it is unpacked"
    )
    max_json_bytes: Annotated[int, Field(ge=1024, le=2**30)] = Field(
        4 * 2**20,
        description="largest JSON of rows and tensors, unpacked; a longer one is answered 413, and must come as bytes",
    )
    body_seconds: Positive = Field(60.0, description="time for a body of readings, rows or a recording to arrive")
    sensor_save_seconds: Positive = Field(
        300.0, description="interval of saving a sensor's state; readings are on the disk before they are acknowledged"
    )
    sensor_keep_seconds: Seconds = Field(
        30 * 86400.0,
        description="time without a reading, counted while the daemon runs, after which a sensor is forgotten;"
        " 0: never",
    )
    max_subscriptions: Count = Field(64, description="patterns that one WebSocket at /v1/sensors may subscribe to")
    metrics_sensors: Annotated[tuple[str, ...], NoDecode] = Field(
        ("*",), description="patterns of sensors that are on the metrics page, in this order, as far as there is room"
    )
    max_sensor_series: Annotated[int, Field(ge=0)] = Field(
        3000, description="series of sensors on the metrics page; sensors beyond that are left out, and counted"
    )
    max_top_anomalies: Annotated[int, Field(ge=0, le=1000)] = Field(
        10, description="sensors with the least probable readings, which are always on the metrics page"
    )
