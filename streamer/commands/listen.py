"""``streamer listen``: transcribes the microphone."""

from __future__ import annotations

import json as json_module
import queue
import sys
import threading
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamer.commands import TOO_SLOW, CommandError, complain, ctrl_c, hush_libraries
from streamer.commands.completion import model_names
from streamer.commands.hearing import (
    HotwordsOption,
    NumbersOption,
    ReviseOption,
    TextOption,
    second_pass,
    stream_options,
)
from streamer.commands.remote import CaOption, TokenOption

if TYPE_CHECKING:
    from streamer.commands.backends import Feed
    from streamer.commands.screen import Screen
    from streamer.sources.microphone import Microphone

__all__ = ["listen"]

#: Most silence in seconds that replaces an interruption: enough to end the utterance that was cut off.
GAP_SECONDS = 3.0
END_SECONDS = 20.0


def listen(
    device: Annotated[
        str | None, typer.Option(help="Number, name or part of the name. Default: the system's choice.")
    ] = None,
    list_devices: Annotated[bool, typer.Option("--list-devices", help="Show the microphones and exit.")] = False,
    model: Annotated[
        str | None,
        typer.Option(help="A shipped name (streamer models lists them) or a path.", autocompletion=model_names),
    ] = None,
    url: Annotated[str | None, typer.Option(help="Let a daemon do it, e.g. ws://127.0.0.1:8765.")] = None,
    token: TokenOption = None,
    ca: CaOption = None,
    seconds: Annotated[float | None, typer.Option(help="Stop after this time. Default: at Ctrl-C.", min=0.1)] = None,
    numbers: NumbersOption = None,
    text: TextOption = None,
    hotwords: HotwordsOption = None,
    revise: ReviseOption = None,
    json: Annotated[bool, typer.Option("--json", help="One event a line: partials, finals and gaps.")] = False,
) -> None:
    """Write down what is said into the microphone, while it is said."""
    if list_devices:
        _list_devices()
        return
    from streamer.commands.backends import connect
    from streamer.commands.screen import Screen
    from streamer.sources.microphone import Microphone

    hush_libraries()
    for_people = sys.stdout.isatty() and not json
    options = stream_options(numbers, text, hotwords, for_people=for_people)
    backend = connect(model, url, 1, options=options, revise=second_pass(revise, url), live=True, token=token, ca=ca)
    try:
        microphone = Microphone(device, backend.rate)
        try:
            show = Screen(text=True) if sys.stdout.isatty() and not json else nullcontext()
            inbox: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
            feed = backend.open(microphone.rate, inbox.put, overflow="gap")
            try:
                with show as screen:
                    Listening(microphone, feed, inbox, screen, json).run(seconds)
            finally:
                feed.close()
        finally:
            microphone.close()
    finally:
        backend.close()


class Listening:
    """The caller's thread reads, feeds and shows; PortAudio's and the engine's threads only fill queues."""

    def __init__(
        self,
        microphone: Microphone,
        feed: Feed,
        inbox: queue.SimpleQueue[dict[str, Any]],
        screen: Screen | None,
        json: bool,
    ) -> None:
        self._microphone = microphone
        self._feed = feed
        self._inbox = inbox
        self._screen = screen
        self._json = json
        self._fed = 0  # samples
        self._peak = 0.0
        self._gaps = 0
        self._reported = 0  # overruns
        self._ended = False

    def run(self, seconds: float | None) -> None:
        """Run until ``seconds`` have passed, Ctrl-C, or the stream fails (:class:`CommandError`)."""
        from streamer.sources.microphone import Block, Lost

        until = None if seconds is None else time.monotonic() + seconds
        with ctrl_c() as interrupted:
            message = f"listening to {self._microphone.name} at {self._microphone.rate} Hz, Ctrl-C ends"
            print(message, file=sys.stderr, flush=True)
            for event in self._microphone.events(
                lambda: interrupted.is_set() or (until is not None and time.monotonic() > until)
            ):
                if isinstance(event, Block):
                    self._hear(event.pcm)
                elif isinstance(event, Lost):
                    complain(f"the microphone is gone ({event.reason}), waiting for it to come back")
                else:
                    self._gap(event.seconds)
                self._show()
            self._feed.end()
            late = threading.Timer(END_SECONDS, self._inbox.put, ({"type": "late"},))
            late.daemon = True
            late.start()
            while not self._ended:
                self._event(self._inbox.get())
            late.cancel()
        if interrupted.is_set():
            raise typer.Exit(130)

    # -- in ----------------------------------------------------------------------------------------------------------

    def _hear(self, pcm: bytes) -> None:
        import numpy as np

        self._feed.send(pcm)
        self._fed += len(pcm) // 2
        level = float(np.abs(np.frombuffer(pcm, "<i2").astype(np.int32)).max(initial=0)) / 32768
        self._peak = max(level, 0.85 * self._peak)  # falls slowly enough to be seen

    def _gap(self, seconds: float) -> None:
        """Feed silence for an interruption, so that the words before and after it are not joined."""
        self._gaps += 1
        at = self._fed / self._microphone.rate
        complain(f"the microphone is back after {seconds:.1f} s, which are missing at {at:.1f} s")
        if self._json:
            print(json_module.dumps({"type": "gap", "start": round(at, 3), "seconds": round(seconds, 3)}), flush=True)
        quiet = b"\0\0" * int(self._microphone.rate * min(seconds, GAP_SECONDS))
        for start in range(0, len(quiet), 2**13):
            self._feed.send(quiet[start : start + 2**13])
        self._fed += len(quiet) // 2

    # -- out ---------------------------------------------------------------------------------------------------------

    def _show(self) -> None:
        while True:
            try:
                self._event(self._inbox.get_nowait())
            except queue.Empty:
                break
        overruns = self._microphone.overruns
        if overruns > self._reported and self._screen is None:
            complain(f"overruns: {overruns} (the microphone was read too late, samples are missing)")
        self._reported = overruns
        if self._screen is not None:
            self._screen.status(self._status())

    def _status(self) -> Any:
        from streamer.commands.screen import clock

        assert self._screen is not None
        line = self._screen.meter(self._peak)
        line.append(f"  {clock(self._fed / self._microphone.rate)}")
        if self._reported or self._gaps:  # before the name, which is cut first
            line.append(f"  overruns {self._reported}, interruptions {self._gaps}", style="yellow")
        line.append(f"  {self._microphone.name}")
        return line

    def _event(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if kind in ("partial", "final"):
            if (
                self._screen is not None
            ):  # before the final is printed above it: the same words must not stand there twice
                self._screen.partial("", event["text"] if kind == "partial" else "")
            if self._json:
                from streamer.render import json_line

                print(json_line(event, self._microphone.name), flush=True)
            elif kind == "final" and event["text"]:
                print(event["text"], flush=True)
        elif kind == "gap":
            dropped = event["dropped"] / self._microphone.rate
            at = event["position"] / self._microphone.rate
            complain(f"decoding is too slow: {dropped:.1f} s were dropped at {at:.1f} s")
        elif kind == "error":
            raise CommandError(f"the stream failed: {event['message']}")
        elif kind == "late":
            raise CommandError(f"the last results did not come within {END_SECONDS:g} s: {TOO_SLOW}")
        elif kind == "end":
            self._ended = True


def _list_devices() -> None:
    from streamer.sources.microphone import NoMicrophoneError, devices

    hush_libraries()
    found = devices()
    if not found:
        raise NoMicrophoneError
    for index, name, channels, default in found:
        print(f"{'*' if default else ' '} {index:3d}  {name}  ({channels} channel{'s' if channels > 1 else ''})")
