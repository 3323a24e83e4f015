"""What is wrong with a client's document, by the names in its JSON: pydantic's texts name Python's classes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

__all__ = ["fault", "faults", "shown"]

#: Faults that are shown at a time.
MOST = 5
#: What is expected, by pydantic's name of the error.
EXPECTED: Mapping[str, str] = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "bytes_type": "a text",
    "dict_type": "a JSON object",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "mapping_type": "a JSON object",
    "model_attributes_type": "a JSON object",
    "model_type": "a JSON object",
    "string_type": "a text",
    "tuple_type": "a list",
}
NUMBERS = frozenset({"a number", "a whole number"})


def faults(error: ValidationError, kind: type[BaseModel], whole: str) -> str:
    """The first few faults in one line. ``kind``: what the document should have been. ``whole``: what it is called
    where no name of it is at fault, such as ``the body``."""
    return "; ".join(fault(each, kind, each["loc"], whole) for each in error.errors()[:MOST])


def fault(error: Mapping[str, Any], kind: type[BaseModel], loc: Sequence[str | int], whole: str) -> str:
    """One of a validation error's faults, at ``loc`` in a document of ``kind``."""
    given, name = error["input"], error["type"]
    where = ".".join(str(part)[:60] for part in loc) or whole
    if name == "missing":
        return f"{where}: it is missing"
    if name == "extra_forbidden":
        holder = _at(kind, loc[:-1])
        known = f": there are {', '.join(_names(holder))}" if holder is not None else ""
        return f"{where}: there is no such field{known}"
    if (expected := EXPECTED.get(name)) is None:
        return f"{where}: {error['msg'].removeprefix('Value error, ').replace('Input should', 'it should', 1)}"
    if expected in NUMBERS and isinstance(given, str):
        return f"{where}: {shown(given)} is text, and a number is expected: leave out the quotes"
    if expected == "a JSON object" and (wanted := _at(kind, loc)) is not None and loc:
        expected = f"a JSON object of {', '.join(_names(wanted))}"
    return f"{where}: {expected} is expected, not {shown(given)}"


def shown(value: Any) -> str:
    """``value`` as JSON, cut short. Lists and objects, which may be long and deep, by their kind."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, (list, tuple)):
        return "a list"
    return json.dumps(value[:60] if isinstance(value, str) else value, default=str)[:60]


def _names(kind: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in kind.model_fields.items()]


def _at(kind: type[BaseModel], loc: Sequence[str | int]) -> type[BaseModel] | None:
    """The class of the document's part at ``loc``; ``None`` where it has no fields of its own."""
    found: type[BaseModel] | None = kind
    for part in loc:
        if isinstance(part, int):
            continue  # an item of a list: its class was found with the list's
        if found is None or part not in found.model_fields:
            return None
        found = _class_in(found.model_fields[part].annotation)
    return found


def _class_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _class_in(part)) is not None), None)
