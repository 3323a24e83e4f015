"""The fields of ``POST /v1/audio/transcriptions``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from streamer.faults import fault
from streamer.serve.openai.errors import OpenAIError
from streamer.serve.openai.multipart import Form, MultipartError, parse_form

__all__ = ["TranscriptionRequest", "read_request"]

#: Fields that may be repeated.
LISTS = frozenset({"timestamp_granularities", "keywords", "hotwords"})


class TranscriptionRequest(BaseModel):
    """The fields that have an effect; others that OpenAI's clients send (prompt, temperature, ...) are ignored.
    ``language`` is only sent back.

    ``keywords`` and ``hotwords`` are the same: names and terms that are expected. ``text`` and ``numbers`` are this
    daemon's own, as in the options of a stream.
    """

    model_config = ConfigDict(frozen=True)

    model: str | None = Field(None, max_length=200)
    response_format: Literal["json", "text", "srt", "verbose_json", "vtt"] = "json"
    language: str = Field("", max_length=60)
    stream: bool = False
    timestamp_granularities: list[Literal["word", "segment"]] = ["segment"]
    keywords: list[str] = []
    hotwords: list[str] = []
    text: Literal["spoken", "written"] | None = None
    numbers: Literal["spoken", "written"] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The stream's options."""
        expected = [*self.keywords, *self.hotwords]
        given: dict[str, Any] = {"partials": self.stream}
        given |= {"hotwords": expected} if expected else {}
        return given | {name: value for name in ("text", "numbers") if (value := getattr(self, name)) is not None}


def read_request(body: bytes, content_type: str) -> tuple[TranscriptionRequest, memoryview, str]:
    """The fields, the recording, and its file name at the client. Raises :class:`OpenAIError`."""
    if len(content_type) > 1000:
        raise OpenAIError(400, "Content-Type is longer than 1000 characters")
    try:
        form = parse_form(body, content_type)
    except MultipartError as error:
        raise OpenAIError(400, str(error)) from error
    found = form.files.get("file")
    if found is None:
        raise OpenAIError(400, "there is no file in the form: send the recording as the field 'file'", param="file")
    return _fields(form), found.data, _shown(found.file)


def _fields(form: Form) -> TranscriptionRequest:
    given = {name: values if name in LISTS else values[-1] for name, values in form.fields.items() if any(values)}
    try:
        return TranscriptionRequest.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise OpenAIError(400, fault(first, TranscriptionRequest, first["loc"], "the form"), param=name) from error


def _shown(name: str | None) -> str:
    """A file's name as messages show it."""
    printable = "".join(c for c in (name or "")[-80:] if c.isprintable())
    return printable or "the file"
