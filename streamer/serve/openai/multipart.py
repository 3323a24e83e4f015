"""Parses ``multipart/form-data`` (RFC 7578 over RFC 2046) in a whole body: no I/O, no copies of files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

__all__ = ["Form", "MultipartError", "Part", "parse_form"]

#: Most parts of one form, and bytes of the headers of one part.
MAX_PARTS, MAX_HEAD = 128, 8192
#: Most bytes of a field that is not a file.
MAX_FIELD = 64 * 1024
#: Blanks behind a delimiter (RFC 2046, transport padding).
MAX_PADDING = 64

_PARAMETER = re.compile(r';\s*([\w-]+\*?)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))')


class MultipartError(ValueError):
    """The body is not a whole form. The message says what is wrong with it."""


@dataclass(frozen=True)
class Part:
    """``file``: the file's name at the client, ``None`` for a text field."""

    name: str
    file: str | None
    data: memoryview


@dataclass(frozen=True)
class Form:
    """``fields``: for each name a list of values; a ``[]`` at the end of a name is left out. ``files``: by name, the
    last of each."""

    fields: dict[str, list[str]]
    files: dict[str, Part]


def parse_form(body: bytes, content_type: str) -> Form:
    """Raises :class:`MultipartError`."""
    kind, _, rest = content_type.partition(";")
    if kind.strip().lower() != "multipart/form-data":
        raise MultipartError(f"Content-Type is {kind.strip()[:60] or 'missing'!r}: multipart/form-data is expected")
    boundary = _parameters(";" + rest).get("boundary", "")
    if not 1 <= len(boundary) <= 70:
        raise MultipartError("the boundary in Content-Type is missing, or longer than 70 characters")
    form = Form({}, {})
    for part in _parts(body, b"--" + boundary.encode("latin-1", "replace")):
        name = part.name.removesuffix("[]")
        if part.file is not None:
            form.files[name] = part
        elif len(part.data) > MAX_FIELD:
            raise MultipartError(f"the field {name[:60]!r} has {len(part.data)} bytes, the limit is {MAX_FIELD}")
        else:
            form.fields.setdefault(name, []).append(bytes(part.data).decode("utf-8", "replace"))
    return form


def _parts(body: bytes, delimiter: bytes) -> list[Part]:
    found: list[Part] = []
    _, at, last = _line(body, delimiter, 0)
    while not last:
        if len(found) == MAX_PARTS:
            raise MultipartError(f"the form has more than {MAX_PARTS} parts")
        head = body.find(b"\r\n\r\n", at, at + MAX_HEAD)  # the first of these line ends is the delimiter's
        if head < 0:
            raise MultipartError(f"a part has no end of its headers, or more than {MAX_HEAD} bytes of them")
        end, after, last = _line(body, delimiter, head + 4)
        found.append(_part(body[at:head].decode("utf-8", "replace"), memoryview(body)[head + 4 : end]))
        at = after
    return found


def _line(body: bytes, delimiter: bytes, start: int) -> tuple[int, int, bool]:
    """The next delimiter: the end of the data before it, the end of its line, and whether it is the last one."""
    at = 0 if start == 0 and body.startswith(delimiter) else body.find(b"\r\n" + delimiter, start) + 2
    while at != 1:
        after = at + len(delimiter)
        if body.startswith(b"--", after):
            return max(0, at - 2), after, True
        after += len(body[after : after + MAX_PADDING]) - len(body[after : after + MAX_PADDING].lstrip(b" \t"))
        if body.startswith(b"\r\n", after):
            return max(0, at - 2), after, False
        at = body.find(b"\r\n" + delimiter, after) + 2  # a longer line that begins with the delimiter
    raise MultipartError("the form is cut off: its last boundary is missing")


def _part(head: str, data: memoryview) -> Part:
    for line in head.split("\r\n"):
        key, _, value = line.partition(":")
        if key.strip().lower() == "content-disposition":
            facts = _parameters(";" + value.partition(";")[2])
            if "name" in facts:
                return Part(facts["name"], facts.get("filename"), data)
    raise MultipartError("a part has no name in its Content-Disposition")


def _parameters(text: str) -> dict[str, str]:
    """Parse ``; name=value; name="value"``; the value of ``name*`` (RFC 8187) wins."""
    found: dict[str, str] = {}
    extended: dict[str, str] = {}
    for name, quoted, plain in _PARAMETER.findall(text):
        key = name.lower()
        if key.endswith("*"):
            extended[key[:-1]] = unquote(plain.rpartition("'")[2])
        else:
            found[key] = re.sub(r"\\(.)", r"\1", quoted) if quoted else plain
    return found | extended
