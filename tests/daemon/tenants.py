"""Tokens for a daemon that is about to start, and requests with them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streamer.serve.access.tokens import Token, TokenFile, digest, new_secret

__all__ = ["bearer", "give", "until"]


def give(folder: Path, name: str, *scopes: str, **limits: Any) -> str:
    """A token of the daemon whose state lies in ``folder``."""
    secret = new_secret()
    limits.setdefault("owner", name)
    token = Token.model_validate({"name": name, "sha256": digest(secret), "scopes": scopes or ["stream"], **limits})
    TokenFile(folder / "tokens.json").add(token)
    return secret


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def until(holds: Callable[[], object], seconds: float = 60) -> None:
    """Wait for what the daemon notices by itself: it looks at its files now and then."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)
