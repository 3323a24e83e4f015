"""``streamer enhance``: sound in, cleaner sound out."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamer.commands import TOO_SLOW, CommandError, complain, ctrl_c, hush_libraries
from streamer.commands.completion import model_names
from streamer.commands.remote import CaOption, TokenOption
from streamer.commands.transcribe import ChannelOption

if TYPE_CHECKING:
    from streamer.commands.aligned import Out
    from streamer.commands.backends import Backend
    from streamer.sources.channels import Channel

__all__ = ["enhance"]

END_SECONDS = 20.0


def enhance(
    file: Annotated[
        str | None, typer.Argument(help="wav, flac, ogg/opus, mp3, aiff, au; others by ffmpeg. - is stdin.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="FILE.wav, .flac or .ogg; - is raw PCM on stdout, as stdin's default."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A shipped name or a path. Default: denoiser.", autocompletion=model_names)
    ] = None,
    url: Annotated[str | None, typer.Option(help="Let a daemon do it, e.g. ws://127.0.0.1:8765.")] = None,
    token: TokenOption = None,
    ca: CaOption = None,
    rate: Annotated[int, typer.Option(help="Sample rate of raw PCM on stdin, in Hz.", min=1)] = 16000,
    listen: Annotated[bool, typer.Option("--listen", help="From the microphone, to the loudspeaker or -o.")] = False,
    device: Annotated[
        str | None, typer.Option(help="Microphone: number, name or part of the name. Default: the system's choice.")
    ] = None,
    output_device: Annotated[
        str | None, typer.Option(help="Output, named the same way. A virtual cable is another program's microphone.")
    ] = None,
    list_devices: Annotated[bool, typer.Option("--list-devices", help="Show microphones and outputs, exit.")] = False,
    seconds: Annotated[float | None, typer.Option(help="With --listen: stop after this time.", min=0.1)] = None,
    channel: ChannelOption = None,
) -> None:
    """Take the noise out of speech. A file keeps its length and its timing; live sound comes late by a constant
    time."""
    if list_devices:
        _list_devices()
        return
    if listen == (file is not None):
        raise CommandError("give a file, or - for standard input, or --listen for the microphone", 2)
    for name, value in (("--device", device), ("--output-device", output_device), ("--seconds", seconds)):
        if value is not None and not listen:
            raise CommandError(f"{name} is for --listen: add it, or leave {name} out", 2)
    if output is not None and output_device is not None:
        raise CommandError("--output and --output-device exclude each other: leave one out", 2)
    from streamer.commands.aligned import check
    from streamer.commands.backends import connect

    if file is not None:
        output = check(file, output or ("-" if file == "-" else None))
    hush_libraries()
    backend = connect(model or "denoiser", url, 1, task="enhance", token=token, ca=ca)
    try:
        if file is None:
            _listen(backend, device, output, output_device, seconds)
        else:
            _convert(backend, file, rate, str(output), channel)
    finally:
        backend.close()


def _convert(backend: Backend, file: str, rate: int, output: str, channel: Channel | None) -> None:
    from streamer.commands.aligned import Conversion
    from streamer.commands.transcribe import Job, screen

    job = Job(file)
    with screen("sound", output != "-") as shown:
        Conversion(backend, job, rate, output, shown, channel).run(1)
    if job.code:
        raise typer.Exit(job.code)


def _listen(
    backend: Backend, device: str | None, output: str | None, output_device: str | None, seconds: float | None
) -> None:
    from streamer.commands.aligned import out_to
    from streamer.commands.loudspeaker import Loudspeaker
    from streamer.sources.microphone import Microphone

    microphone = Microphone(device, backend.rate)
    try:
        live = Live()
        feed = backend.open(microphone.rate, live.take, overflow="gap")
        try:
            given = int(feed.ready.get("output_rate") or 0)
            if not given:
                raise CommandError(
                    f"the model {feed.ready['model']} gives no sound back: name another (streamer models)",
                    2,
                )
            to: Out | Loudspeaker = Loudspeaker(output_device, given) if output is None else out_to(output, given)
            try:
                where = to.name if isinstance(to, Loudspeaker) else output
                late = float(feed.ready["chunk_seconds"]) + float(feed.ready["latency_seconds"])
                path = f"from {microphone.name} to {where}, {1000 * late:.0f} ms late plus the devices' latency"
                print(f"{path}; Ctrl-C ends", file=sys.stderr, flush=True)
                live.run(microphone, feed, to, seconds)
            finally:
                to.close()
            if isinstance(to, Loudspeaker) and to.dropped > 1:
                complain(f"{to.name} was slower than the microphone: {to.dropped:.1f} s were left out")
        finally:
            feed.close()
    finally:
        microphone.close()


class Live:
    """Live mode: the caller's thread reads and feeds; events come in another thread, which plays their sound."""

    def __init__(self) -> None:
        self._out: Any = None
        self._early = bytearray()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._error: Exception | None = None

    def take(self, event: dict[str, Any]) -> None:
        """Called from the engine's thread or the client's."""
        from streamer.commands.aligned import pcm_of

        kind = event["type"]
        try:
            if kind == "audio":
                with self._lock:
                    if self._out is None:
                        self._early += pcm_of(event)
                    else:
                        self._out.write(pcm_of(event))
            elif kind == "gap":
                complain("the model is too slow: sound was left out")
            elif kind == "error":
                self._error = CommandError(f"the stream failed: {event['message']}")
        except Exception as error:  # an error of the output, raised again in the caller's thread
            self._error = error
        if kind in ("end", "error") or self._error is not None:
            self._over.set()

    def run(self, microphone: Any, feed: Any, out: Any, seconds: float | None) -> None:
        from streamer.sources.microphone import Block, Lost

        with self._lock:
            self._out = out
            out.write(bytes(self._early))
        until = None if seconds is None else time.monotonic() + seconds
        with ctrl_c() as interrupted:
            for event in microphone.events(
                lambda: interrupted.is_set() or self._over.is_set() or (until is not None and time.monotonic() > until)
            ):
                if isinstance(event, Block):
                    feed.send(event.pcm)
                elif isinstance(event, Lost):
                    complain(f"the microphone is gone ({event.reason}), waiting for it to come back")
                else:
                    complain(f"the microphone is back after {event.seconds:.1f} s")
            if self._error is None:
                feed.end()
                if not self._over.wait(END_SECONDS):
                    raise CommandError(f"the last sound did not come within {END_SECONDS:g} s: {TOO_SLOW}")
        if self._error is not None:
            raise self._error
        if interrupted.is_set():
            raise typer.Exit(130)


def _list_devices() -> None:
    from streamer.commands import loudspeaker
    from streamer.sources import microphone

    hush_libraries()
    for title, found in (("microphones", microphone.devices()), ("outputs", loudspeaker.devices())):
        print(f"{title}:")
        for index, name, channels, default in found:
            print(f"{'*' if default else ' '} {index:3d}  {name}  ({channels} channel{'s' if channels > 1 else ''})")
