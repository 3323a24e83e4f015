"""Options of the commands whose work a daemon may do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from streamer.serve.moving.peer import PeerError

__all__ = ["CaOption", "TokenOption", "advice"]

TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token",
        envvar="STREAMER_TOKEN",
        help="Token for --url; the environment hides it from others.",
        metavar="TOKEN",
    ),
]
CaOption = Annotated[
    Path | None, typer.Option("--ca", envvar="STREAMER_CA", help="Certificates to trust at --url wss://... (PEM).")
]


def advice(error: PeerError) -> str:
    """Why a daemon did not do what it was asked for, and what to do next."""
    if error.status in (401, 403):
        return f"{error}: give a token that may do it with --token or STREAMER_TOKEN (streamer token makes one)"
    if error.reached:
        return str(error)
    return f"{error}: start one with streamer serve, or name another with --url"
