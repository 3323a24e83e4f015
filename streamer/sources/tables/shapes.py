"""JSON of known services to plain records: Home Assistant, The Things Stack, ChirpStack, Prometheus, InfluxDB,
Telegraf, Node-RED, Shelly, pandas, ThingSpeak, Open-Meteo."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from streamer.names import series_name
from streamer.sources.tables.clock import is_time, number
from streamer.sources.tables.documents import decode
from streamer.sources.tables.layouts import TIMES, key

__all__ = ["ObjectRecord", "numbers_in", "records"]

#: Most nested numbers of one object.
NESTED = 1000
_TIMES = frozenset(TIMES)


class ObjectRecord(NamedTuple):
    """A record. ``values``: an object. ``stream`` and ``time``: given outside of the object, ``None``: look in it.
    ``alone``: its only value has the stream's name. ``part``: part of a larger object, of which nothing else is
    read."""

    values: Mapping[str, Any]
    stream: str | None = None
    time: str | int | float | None = None
    alone: bool = False
    part: str = ""


def records(value: Any) -> Iterator[ObjectRecord]:
    """The records of a JSON value. Raises ``ValueError`` if it is neither an object nor a list of objects."""
    if isinstance(value, list):
        if not value:
            return
        if all(isinstance(item, dict) and ("n" in item or "bn" in item) for item in value):
            yield from _senml(value)
            return
        for item in value:
            if not isinstance(item, list | dict):
                raise ValueError(f"holds {json.dumps(item)[:40]}, which is no JSON object")
            yield from records(item)
        return
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")
    found = _known(value)
    if found is None:
        found = _general(value)
    yield from found


def numbers_in(parsed: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """All values at any depth that are neither objects nor lists, with the keys that lead to them. Raises
    ``ValueError`` if there are too many."""
    count = 0
    for name, value in parsed.items():
        if not isinstance(value, dict | list):
            yield name, value
            continue
        left: list[tuple[str, Any]] = [(name, value)]
        while left:
            path, node = left.pop()
            if isinstance(node, dict | list):
                if len(path) > 1000:
                    raise ValueError(f"{path[:40]!r}... is too deep for a name")
                items = node.items() if isinstance(node, dict) else enumerate(node)
                left.extend([(f"{path}.{key}", inner) for key, inner in items][::-1])
                continue
            count += 1
            if count > NESTED:
                raise ValueError(f"holds more than {NESTED} values below its top: --value names those that are wanted")
            yield path, node


def _known(parsed: dict[str, Any]) -> Iterator[ObjectRecord] | None:
    """The records of a service that is recognised by its keys."""
    get = parsed.get
    if isinstance(get("end_device_ids"), dict) and isinstance(get("uplink_message"), dict):
        up, ids = parsed["uplink_message"], parsed["end_device_ids"]
        return _device(
            ids.get("device_id"),
            get("received_at") or up.get("received_at"),
            up.get("decoded_payload"),
            "decoded_payload",
        )
    if "dev_id" in parsed and isinstance(get("payload_fields"), dict):
        return _device(parsed["dev_id"], _in(parsed, "metadata", "time"), parsed["payload_fields"], "payload_fields")
    if isinstance(get("deviceInfo"), dict) and "object" in parsed:
        info = parsed["deviceInfo"]
        return _device(info.get("deviceName") or info.get("devEui"), get("time"), parsed["object"], "object")
    if ("devEUI" in parsed or "deviceName" in parsed) and ("object" in parsed or "objectJSON" in parsed):
        payload = get("object")
        if payload is None and isinstance(get("objectJSON"), str):
            (payload, *_) = decode(parsed["objectJSON"] or "{}")
        at = get("time") or get("publishedAt") or _in(parsed, "rxInfo", 0, "time")
        return _device(get("deviceName") or get("devEUI"), at, payload, "object")
    if isinstance(get("params"), dict) and "ts" in parsed["params"] and "method" in parsed:
        params = dict(parsed["params"])
        return _device(get("src"), params.pop("ts"), params, "params")
    if "entity_id" in parsed and "state" in parsed:
        at = next((parsed[name] for name in ("last_changed", "last_updated", "time") if name in parsed), None)
        return iter((ObjectRecord({"state": parsed["state"]}, str(parsed["entity_id"]), at, True, "state"),))
    if "payload" in parsed and ("topic" in parsed or "_msgid" in parsed):
        payload = parsed["payload"]
        inner = payload if isinstance(payload, dict) else {"value": payload}
        at = next((value for name, value in parsed.items() if key(name) in _TIMES), None)
        return iter((ObjectRecord(inner, str(get("topic") or "") or None, at, False, "payload"),))
    if isinstance(get("fields"), dict) and ("tags" in parsed or "name" in parsed):
        return _telegraf(parsed)
    if isinstance(get("metrics"), list):
        return records(parsed["metrics"])
    if isinstance(get("data"), dict) and isinstance(parsed["data"].get("result"), list):
        return _prometheus(parsed["data"]["result"])
    if isinstance(get("results"), list) and any(isinstance(r, dict) and "series" in r for r in parsed["results"]):
        return _influx(parsed["results"])
    if isinstance(get("columns"), list) and isinstance(get("data", get("values")), list):
        return _split(parsed)
    return None


def _general(parsed: dict[str, Any]) -> Iterator[ObjectRecord]:
    clock = next((name for name in parsed if key(name) in _TIMES), None)
    if clock is not None and isinstance(parsed[clock], list):
        return _columnar(parsed, clock)
    if clock is None:
        for inner in parsed.values():
            if isinstance(inner, dict):
                within = next((name for name in inner if key(name) in _TIMES), None)
                if within is not None and isinstance(inner[within], list):
                    return _columnar(inner, within)
                if within is not None and len(parsed) == 1:
                    return records(inner)
        lists = [v for v in parsed.values() if isinstance(v, list) and v and all(isinstance(i, dict) for i in v)]
        if len(lists) == 1 and any(key(name) in _TIMES for name in lists[0][0]):
            return records(lists[0])
        if len(parsed) == 1 and lists:
            return records(lists[0])
        if parsed and all(map(_is_moment, parsed)):
            return _by_time(parsed)
        if parsed and all(isinstance(v, dict) and v and all(map(_is_moment, v)) for v in parsed.values()):
            return _by_column(parsed)
    return iter((ObjectRecord(parsed),))


def _device(stream: Any, at: Any, values: Any, part: str) -> Iterator[ObjectRecord]:
    if not isinstance(values, dict):
        raise ValueError("has no decoded payload: the device needs a payload formatter (decoder)")
    yield ObjectRecord(values, None if stream is None else str(stream), at, part=part)


def _senml(parsed: list[dict[str, Any]]) -> Iterator[ObjectRecord]:
    """SenML (RFC 8428): names and times add to base values, which apply from their record on."""
    name, at = "", 0.0
    for item in parsed:
        name, at = str(item.get("bn", name)), float(item.get("bt", at))
        value = item.get("v", item.get("vb", item.get("vs")))
        if value is not None:
            moment = at + float(item.get("t", 0.0))
            known = moment > 2**28  # below that it counts from now on
            yield ObjectRecord({"value": value}, f"{name}{item.get('n', '')}", moment if known else None, True)


def _telegraf(parsed: dict[str, Any]) -> Iterator[ObjectRecord]:
    tags = [(str(name), str(value)) for name, value in (parsed.get("tags") or {}).items()]
    at = next((parsed[name] for name in parsed if key(name) in _TIMES), None)
    for field, value in parsed["fields"].items():
        metric = str(parsed.get("name") or "")
        metric = metric if field == "value" and metric else ".".join(part for part in (metric, field) if part)
        yield ObjectRecord({"value": value}, series_name(metric, tags), at, True)


def _prometheus(result: list[Any]) -> Iterator[ObjectRecord]:
    for series in result:
        labels = {str(name): str(value) for name, value in series.get("metric", {}).items()}
        name = series_name(labels.pop("__name__", "value"), labels.items())
        for sample in series.get("values") or ([series["value"]] if "value" in series else []):
            yield ObjectRecord({"value": sample[1]}, name, sample[0], True)


def _influx(results: list[Any]) -> Iterator[ObjectRecord]:
    for result in results:
        for series in result.get("series", ()):
            names, tags = series.get("columns", []), series.get("tags") or {}
            for row in series.get("values", ()):
                cells = dict(zip(names, row, strict=False))
                at = cells.pop("time", None)
                for column, value in cells.items():
                    metric = str(series.get("name", ""))
                    metric = metric if column == "value" and metric else f"{metric}.{column}".strip(".")
                    yield ObjectRecord({"value": value}, series_name(metric, tags.items()), at, True)


def _split(parsed: dict[str, Any]) -> Iterator[ObjectRecord]:
    names = [str(name) for name in parsed["columns"]]
    index = parsed.get("index")
    timed = any(key(name) in _TIMES for name in names)
    for at, row in enumerate(parsed["data"] if "data" in parsed else parsed["values"]):
        if not isinstance(row, list) or len(row) != len(names):
            raise ValueError(f"row {at + 1} has not the {len(names)} fields of its columns")
        moment = index[at] if isinstance(index, list) and at < len(index) and not timed else None
        yield ObjectRecord(dict(zip(names, row, strict=True)), None, moment if _is_moment(str(moment)) else None)


def _columnar(parsed: dict[str, Any], clock: str) -> Iterator[ObjectRecord]:
    """Parallel lists, one of which is the time."""
    count = len(parsed[clock])
    columns = {name: values for name, values in parsed.items() if isinstance(values, list)}
    if odd := next((name for name, values in columns.items() if len(values) != count), None):
        raise ValueError(f"{odd!r} has {len(columns[odd])} values, {clock!r} has {count}")
    for at in range(count):
        yield ObjectRecord({name: values[at] for name, values in columns.items()})


def _by_time(parsed: dict[str, Any]) -> Iterator[ObjectRecord]:
    for moment, value in parsed.items():
        yield ObjectRecord(value if isinstance(value, dict) else {"value": value}, None, moment)


def _by_column(parsed: dict[str, Any]) -> Iterator[ObjectRecord]:
    moments = dict.fromkeys(moment for inner in parsed.values() for moment in inner)
    for moment in moments:
        yield ObjectRecord({name: inner[moment] for name, inner in parsed.items() if moment in inner}, None, moment)


def _is_moment(text: str) -> bool:
    found = number(text)
    return abs(found) > 1e8 if found is not None else is_time(text)


def _in(parsed: Any, *path: str | int) -> Any:
    for step in path:
        if isinstance(parsed, dict) and isinstance(step, str):
            parsed = parsed.get(step)
        elif isinstance(parsed, Sequence) and isinstance(step, int) and len(parsed) > step:
            parsed = parsed[step]
        else:
            return None
    return parsed
