"""JSON schemas of the types that the code itself uses, each once, under its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter

__all__ = ["Components", "JsonSchema"]

JsonSchema = dict[str, Any]


class Components:
    """Collects schemas; :meth:`of` gives a reference to each."""

    def __init__(self) -> None:
        self.schemas: dict[str, JsonSchema] = {}

    def of(self, kind: Any) -> JsonSchema:
        """A reference to the schema of a type: a model, a dataclass, anything that pydantic knows. A dictionary is a
        schema already, and is returned unchanged."""
        if isinstance(kind, dict):
            return kind
        mode = "serialization" if dataclasses.is_dataclass(kind) else "validation"
        found = TypeAdapter(kind).json_schema(mode=mode, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
        self.schemas.update(found.pop("$defs", {}))
        name = getattr(kind, "__name__", "")
        if not name or "properties" not in found:
            return found
        self.schemas[name] = found
        return {"$ref": f"#/components/schemas/{name}"}

    def event(
        self, kind: type, types: Sequence[str], *, often: Sequence[str] = (), numbered: bool = True
    ) -> JsonSchema:
        """A reference to the schema of an event, a dataclass of a task: its own fields, with ``type`` one of
        ``types``, and the number that a stream gives it. ``often``: fields that are not in every event."""
        self.of(kind)
        found = self.schemas[kind.__name__]
        found["properties"]["type"] = {"enum": list(types)}
        if numbered:
            found["properties"]["seq"] = {"type": "integer", "minimum": 1, "description": "number in its stream"}
        found["required"] = [name for name in found["properties"] if name not in (*often, "seq")]
        return {"$ref": f"#/components/schemas/{kind.__name__}"}
