"""Makes classes of Protobuf messages from a table, without generated files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["messages"]

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "double": _Field.TYPE_DOUBLE,
    "float": _Field.TYPE_FLOAT,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64,
    "sfixed64": _Field.TYPE_SFIXED64,
    "fixed64": _Field.TYPE_FIXED64,
    "bool": _Field.TYPE_BOOL,
    "bytes": _Field.TYPE_BYTES,
}


def messages(file: str, table: Mapping[str, Mapping[str, tuple[int, str]]]) -> dict[str, Any]:
    """Classes by name. A field is (number, type); the type is a scalar's or another message's, with ``*`` repeated.

    Text is declared as bytes: invalid UTF-8 then costs one series, not the whole request. Singular scalars have
    presence.
    """
    described = descriptor_pb2.FileDescriptorProto(name=file, package=file.partition(".")[0], syntax="proto2")
    for name, fields in table.items():
        message = described.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            many, base = kind.endswith("*"), kind.rstrip("*")
            label = _Field.LABEL_REPEATED if many else _Field.LABEL_OPTIONAL
            made = message.field.add(name=field, number=number, label=label)
            if base in _SCALARS:
                made.type = _SCALARS[base]
            else:
                made.type, made.type_name = _Field.TYPE_MESSAGE, f".{described.package}.{base}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(described)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{described.package}.{name}"))
        for name in table
    }
