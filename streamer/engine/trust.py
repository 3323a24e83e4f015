"""Whose signature a model file needs."""

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
    """The keys of which one must have signed the file; none: nobody need have. Shipped models came with this code, and
    are as good as it is. Raises :class:`ModelError`."""
    if not settings.model_keys or path in find_models():
        return ()
    try:
        return tuple(read_public_key(key) for key in settings.model_keys)
    except SignatureError as error:
        raise ModelError(f"setting model_keys: {error}") from error
