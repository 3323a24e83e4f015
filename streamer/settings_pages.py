"""Settings of the pages in the browser: a part of :class:`streamer.settings.Settings`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings

__all__ = ["PageSettings"]


class PageSettings(BaseSettings):
    """Pages in the browser: captions, forecasts, the engine."""

    pages: bool = Field(True, description="pages for browsers at /, /forecasts and /engine; false: / is plain text")
    max_shown_readings: Annotated[int, Field(ge=0, le=4096)] = Field(
        120,
        description="readings of a sensor that are kept in memory with their forecasts for the page of forecasts, 28"
        " bytes each; a restart forgets them; 0: none",
    )
