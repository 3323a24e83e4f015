"""The query of ``POST /v1/readings``. It is our own route, so a parameter or a value that is not known is refused:
otherwise a slip of the pen would change what the readings are. The routes of other systems' senders are lenient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.datastructures import QueryParams

from streamer.serve.readings.parsed import BodyError
from streamer.serve.readings.remedies import as_parameters
from streamer.sources import SourceError
from streamer.sources.readings import Columns
from streamer.sources.tables.clock import find_zone
from streamer.spelling import nearest

__all__ = ["PARAMETERS", "ReadingQuery", "reading_query"]

#: Parameters that may be repeated, and those that are given once.
SEVERAL = ("id", "time", "value", "missing")
SINGLE = ("columns", "decimal", "time_format", "zone", "model", "stream", "forecast")
PARAMETERS = (*SEVERAL, *SINGLE)
FLAGS = {"": False, "0": False, "false": False, "1": True, "true": True}


@dataclass(frozen=True, slots=True)
class ReadingQuery:
    """``model`` and ``stream``: ``None`` if not given. ``forecast``: the answer is to have the forecasts."""

    columns: Columns
    model: str | None
    stream: str | None
    forecast: bool


def reading_query(query: QueryParams, missing: Sequence[str] = ()) -> ReadingQuery:
    """``missing``: the setting. Raises :class:`BodyError`."""
    for name in query:
        if name not in PARAMETERS:
            near = nearest(name, PARAMETERS)
            raise BodyError(
                400,
                f"unknown parameter {name[:40]!r}: "
                + (f"did you mean {near}?" if near else f"there are {', '.join(PARAMETERS)}"),
            )
    for name in SINGLE:
        if len(query.getlist(name)) > 1:
            raise BodyError(400, f"?{name}= is there {len(query.getlist(name))} times: give it once")
    decimal, zone, forecast = query.get("decimal", ""), query.get("zone", ""), query.get("forecast", "")
    if decimal not in ("", ".", ","):
        raise BodyError(400, f"?decimal={decimal[:20]!r}: give '.' or ','")
    if forecast.lower() not in FLAGS:
        raise BodyError(400, f"?forecast={forecast[:20]!r}: give 1 or 0")
    try:
        find_zone(zone)
    except SourceError as error:
        raise BodyError(400, as_parameters(str(error))) from None
    names = query.get("columns", "")
    columns = Columns(
        tuple(query.getlist("id")),
        tuple(query.getlist("time")),
        tuple(query.getlist("value")),
        only_missing=True,
        names=tuple(name.strip() for name in names.split(",")) if names else (),
        missing=(*missing, *query.getlist("missing")),
        decimal=decimal,
        time_format=query.get("time_format", ""),
        zone=zone,
    )
    return ReadingQuery(columns, query.get("model"), query.get("stream") or None, FLAGS[forecast.lower()])
