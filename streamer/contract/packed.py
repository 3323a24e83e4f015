"""Packed parts of a manifest: bytes inside JSON, with bounds, so that no foreign file fills the memory."""

from __future__ import annotations

import base64
import binascii
import lzma
import math
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "MAX_MODEL_BYTES",
    "MAX_UNPACKED_BYTES",
    "ManifestError",
    "ManifestPart",
    "Packed",
    "bytes_of",
    "packed_bytes",
]

#: Default of the bytes that a model may take (setting ``max_model_bytes``): its file and its packed parts; its
#: decoder's tables; the arrays of its largest batch.
MAX_MODEL_BYTES = 4 * 2**30
#: Bytes of the dictionary that unpacking may ask for: that of a preset is 64 MiB, a foreign file may ask for 4 GiB.
MAX_DICTIONARY_BYTES = 160 * 2**20
#: Bytes that one packed blob (lexicon, language model, golden tensor) may unpack to: a foreign file must not fill the
#: memory.
MAX_UNPACKED_BYTES = 256 * 2**20


class ManifestError(ValueError):
    """The file has no manifest, or one that this build does not understand. The message says what to do about it."""


class ManifestPart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def bytes_of(dtype: str, shape: Sequence[int]) -> int:
    """Bytes of an array, in Python's integers: the shape in a foreign file may overflow any other type."""
    return np.dtype(dtype).itemsize * math.prod(shape)


class Packed(ManifestPart):
    """Bytes inside JSON: xz, then base64. ``size`` is the unpacked length and is checked."""

    xz: str
    size: Annotated[int, Field(ge=0, le=MAX_UNPACKED_BYTES)]

    @classmethod
    def pack(cls, data: bytes) -> Packed:
        # the preset's own dictionary is 64 MiB, and compressing even the smallest tensor with it takes ten times that
        wanted = {"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": min(max(len(data), 2**12), 2**26)}
        return cls(xz=base64.b64encode(lzma.compress(data, filters=[wanted])).decode("ascii"), size=len(data))

    def unpack(self) -> bytes:
        """The bytes. Raises :class:`ManifestError` if they are damaged or longer than declared."""
        try:
            decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_DICTIONARY_BYTES)
            data = decompressor.decompress(base64.b64decode(self.xz, validate=True), max_length=self.size + 1)
        except (binascii.Error, lzma.LZMAError, ValueError) as error:
            raise ManifestError(
                f"a packed part of the manifest is damaged ({error}): export the model again"
            ) from error
        if len(data) != self.size:
            raise ManifestError(
                f"a packed part of the manifest holds {len(data)} bytes or more where {self.size} are declared: "
                "export the model again"
            )
        return data


def packed_bytes(*parts: Any) -> int:
    """Declared size of all packed parts in these JSON values once they are unpacked; unpacking verifies it."""
    found, waiting = 0, list(parts)
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if isinstance(part.get("xz"), str) and isinstance(part.get("size"), int):
                found += max(0, part["size"])
            waiting += part.values()
        elif isinstance(part, (list, tuple)):
            waiting += part
    return found
