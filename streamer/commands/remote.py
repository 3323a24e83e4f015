"""Options of the commands that a daemon may do the work for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["CaOption", "TokenOption"]

TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token", envvar="STREAMER_TOKEN", help="Token for --url; in the environment nobody sees it.", metavar="TOKEN"
    ),
]
CaOption = Annotated[
    Path | None, typer.Option("--ca", envvar="STREAMER_CA", help="Certificates to trust at --url wss://... (PEM).")
]
