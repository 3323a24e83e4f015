"""Configurations: frozen dataclasses that fix a model's shape and are stored in its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

__all__ = ["Config"]


@dataclass(frozen=True)
class Config:
    """Base of configurations. Sequences are tuples in a configuration, and lists in its JSON-ready dictionary."""

    def to_dict(self) -> dict[str, Any]:
        return {name: _listed(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`. A configuration that contains others overrides it."""
        return cls(**{name: _frozen(value) for name, value in values.items()})


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _listed(part) for name, part in value.items()}
    return [_listed(part) for part in value] if isinstance(value, (list, tuple)) else value


def _frozen(value: Any) -> Any:
    return tuple(_frozen(part) for part in value) if isinstance(value, (list, tuple)) else value
