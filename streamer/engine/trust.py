"""The keys that may sign a model file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from streamer.contract.signature import PublicKey, SignatureError, read_public_key
from streamer.engine.catalogue import find_models
from streamer.engine.model import ModelError

if TYPE_CHECKING:
    from streamer.settings import Settings

__all__ = ["model_keys"]


def model_keys(settings: Settings, path: Path) -> tuple[PublicKey, ...]:
    """The keys, one of which must have signed the file; empty: no signature is needed. Shipped models came with this
    code, and are as trustworthy as the code. Raises :class:`ModelError`."""
    if not settings.model_keys or path in find_models():
        return ()
    try:
        return tuple(read_public_key(key) for key in settings.model_keys)
    except SignatureError as error:
        raise ModelError(f"setting model_keys: {error}") from error
