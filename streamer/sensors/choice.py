"""Chooses the fleet for readings or a name, if several models for sensors are served."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from streamer.names import name_of
from streamer.sensors.ingest import Fleet

__all__ = ["AmbiguousError", "NoSensorsError", "fleet_of_columns", "fleet_of_name", "other_kind"]


class NoSensorsError(LookupError):
    """No model is served for these readings."""


class AmbiguousError(LookupError):
    """Several models are served for these readings, or have a stream of this name: ``model`` has to choose."""


def fleet_of_columns(fleets: Mapping[str, Fleet], model: str | None, columns: Collection[str]) -> Fleet:
    """The fleet called ``model``; else, of the fleets whose variables are among ``columns``, the one with the most
    variables; else that for single sensors. Raises :class:`NoSensorsError` and :class:`AmbiguousError`."""
    if model is not None:
        if model not in fleets:
            raise NoSensorsError(f"no model {model[:100]!r} for sensors is served here: {', '.join(fleets)}")
        return fleets[model]
    given = frozenset(columns)
    fitting = [f for f in fleets.values() if f.layout.variables and given.issuperset(f.layout.variables)]
    if fitting:
        widest = max(len(fleet.layout.variables) for fleet in fitting)
        fitting = [fleet for fleet in fitting if len(fleet.layout.variables) == widest]
    else:
        fitting = [fleet for fleet in fleets.values() if not fleet.layout.variables]
    if not fitting:
        taken = "; ".join(f"{name} takes {', '.join(fleet.layout.variables)}" for name, fleet in fleets.items())
        raise NoSensorsError(f"no model is served here for {', '.join(columns)[:200] or 'single sensors'}: {taken}")
    if len(fitting) > 1:
        raise AmbiguousError(f"the columns fit several models: name one of {_names(fitting)} (model=NAME)")
    return fitting[0]


def other_kind(fleets: Mapping[str, Fleet], fleet: Fleet, columns: Collection[str]) -> str:
    """Why a line of these ``columns`` does not belong to ``fleet``, to which the first line of its request does; empty
    if it does. A request is one batch of one model."""
    try:
        found: Fleet | None = fleet_of_columns(fleets, None, columns)
    except LookupError:
        found = None
    if found is fleet:
        return ""
    name, apart = fleet.model.manifest.name, "send lines of two kinds in two requests"
    if found is not None and found.layout.variables:
        other = found.model.manifest.name
        return f"is a row of {other}, the first line is one for {name}: {apart}"
    absent = [variable for variable in fleet.layout.variables if variable not in columns]
    more = f" (with model={name} absent ones count as missing)" if len(absent) < len(fleet.layout.variables) else ""
    return f"is no row of {name}, as the first line is, without {', '.join(absent)[:200]}{more}: {apart}"


def fleet_of_name(fleets: Mapping[str, Fleet], name: str) -> Fleet | None:
    """The fleet that has the sensor; ``None``: none does. Raises :class:`AmbiguousError`."""
    owners = [fleet for fleet in fleets.values() if name in fleet.slots]
    if len(owners) > 1:
        raise AmbiguousError(
            f"{name_of(name)[:200]!r} is a stream of several models: name one of {_names(owners)} (model=NAME)"
        )
    return owners[0] if owners else None


def _names(fleets: Collection[Fleet]) -> str:
    return ", ".join(fleet.model.manifest.name for fleet in fleets)
