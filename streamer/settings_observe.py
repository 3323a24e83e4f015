"""Settings of traces and logs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

__all__ = ["NO_OBSERVE_LIMITS", "ObserveSettings"]

#: Numbers among them that are not bounds.
NO_OBSERVE_LIMITS = frozenset({"otel_chunk_share", "log_text"})


class ObserveSettings(BaseSettings):
    """A part of :class:`streamer.settings.Settings`."""

    log_text: bool = Field(
        False,
        description="the log may hold what was said or sent: the words of finals (level debug), and refusals that quote"
        " a client; sound and tokens never",
    )
    otel_endpoint: str = Field(
        "",
        description="OpenTelemetry collector that traces are sent to (OTLP over HTTP), such as http://127.0.0.1:4318;"
        " empty: the one in OTEL_EXPORTER_OTLP_ENDPOINT, or none",
    )
    otel_chunk_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.01, description="share of the chunks and of sensors' readings that get a span, by chance"
    )
    otel_max_waiting_spans: Annotated[int, Field(ge=1, le=2**20)] = Field(
        2048, description="spans that wait for the collector; one more is dropped, and counted"
    )
    otel_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        5.0, description="time for sending a batch of spans, and for sending the last ones at exit"
    )

    @field_validator("otel_endpoint")
    @classmethod
    def _url(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("an address such as http://127.0.0.1:4318 is expected")
        return value
