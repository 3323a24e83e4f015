"""``streamer top``: what a daemon does now."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamer.commands import CommandError
from streamer.commands.remote import CaOption, TokenOption, advice

if TYPE_CHECKING:
    from streamer.commands.top_look import DaemonLook
    from streamer.serve.moving.peer import Peer

__all__ = ["top"]

HERE = "http://127.0.0.1:8765"
#: Seconds that a daemon may take for one page.
ANSWER_SECONDS = 10.0
#: Most streams that each look writes into a pipe.
PIPED = 50


def top(
    url: Annotated[str, typer.Option("--url", help="The daemon.")] = HERE,
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.1, max=3600)] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="One look, then end: rates are not known then.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object for each look.")] = False,
    token: TokenOption = None,
    ca: CaOption = None,
) -> None:
    """Watch a daemon: its models, streams and sensors, how far behind they are, and what it refused. Ctrl-C ends.

    In a pipe every look is written below the one before, without colours.
    """
    from streamer.serve.moving.peer import Peer, PeerError

    try:
        watch = Watched(Peer(url, token, ANSWER_SECONDS, ca), every)
        watch.look()
    except PeerError as error:
        raise CommandError(advice(error)) from error
    if json_output:
        _lines(watch, once, lambda: typer.echo(json.dumps(watch.now.to_dict(url))))
    elif once or not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        _lines(watch, once, lambda: _print(watch, url))
    else:
        _live(watch, url)


class Watched:
    """A daemon whose pages are read at intervals."""

    now: DaemonLook

    def __init__(self, peer: Peer, every: float) -> None:
        self._peer, self._every = peer, every
        self.before: DaemonLook | None = None
        self.trouble = ""

    def look(self) -> None:
        """Raises :class:`~streamer.serve.moving.peer.PeerError`."""
        from streamer.commands.top_look import look_at

        past = getattr(self, "now", None)
        self.now = look_at(self._peer, time.monotonic(), past)
        self.before, self.trouble = past, ""

    def again(self) -> None:
        """Look once the time has come; a daemon that is gone is asked again next time."""
        from streamer.serve.moving.peer import PeerError

        time.sleep(self._every)
        try:
            self.look()
        except PeerError as error:
            self.trouble = f"{error}: trying again"


def _lines(watch: Watched, once: bool, show: Any) -> None:
    while True:
        if watch.trouble:
            print(f"streamer: {watch.trouble}", file=sys.stderr, flush=True)
        else:
            show()
            sys.stdout.flush()
        if once:
            return
        watch.again()


def _print(watch: Watched, url: str) -> None:
    from rich.console import Console

    from streamer.commands.top_view import view

    console = Console(highlight=False)
    if watch.before is not None:
        console.print()
    console.print(view(watch.now, watch.before, url, console.width, PIPED))


def _live(watch: Watched, url: str) -> None:
    """Show the looks on the terminal's alternate screen, so that the terminal's own text comes back afterwards."""
    from rich.console import Console
    from rich.live import Live

    from streamer.commands.top_view import view

    console = Console(highlight=False)

    def draw() -> Any:
        return view(watch.now, watch.before, url, console.width, console.height, watch.trouble)

    with Live(console=console, screen=True, auto_refresh=False, get_renderable=draw) as live:
        while True:
            live.refresh()
            watch.again()
