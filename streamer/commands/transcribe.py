"""``streamer transcribe``: files and standard input."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from streamer.commands import CommandError, complain, hush_libraries

if TYPE_CHECKING:
    from streamer.commands.backends import Backend
    from streamer.commands.outputs import Output
    from streamer.commands.screen import Screen
    from streamer.sources.files import AudioFile, RawStdin

__all__ = ["Job", "Transcription", "screen", "transcribe", "wanted"]


def transcribe(
    files: Annotated[
        list[str],
        typer.Argument(
            help="wav, flac, ogg/opus or mp3; - is raw PCM on stdin (s16le, mono); a picture of a written line.",
            metavar="FILE",
        ),
    ],
    model: Annotated[str | None, typer.Option(help="A shipped name (streamer models lists them) or a path.")] = None,
    url: Annotated[str | None, typer.Option(help="Let a daemon do it, e.g. ws://127.0.0.1:8765.")] = None,
    rate: Annotated[int, typer.Option(help="Sample rate of raw PCM on stdin, in Hz.", min=1)] = 16000,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", help="Files at a time; they share batches.", min=1, max=1024)
    ] = 4,
    json: Annotated[
        bool, typer.Option("--json", help="One event a line: partials and finals with word times.")
    ] = False,
    srt: Annotated[bool, typer.Option("--srt", help="Subtitles (SubRip).")] = False,
    vtt: Annotated[bool, typer.Option("--vtt", help="Subtitles (WebVTT).")] = False,
    numbers: Annotated[
        Literal["spoken", "written"] | None,
        typer.Option(help="Numbers in words or in digits. Default: spoken, or what the daemon is set to."),
    ] = None,
    revise: Annotated[
        str | None,
        typer.Option(
            help="Whisper model (base, a folder) that hears each final once more; of a daemon: on, or off.",
            metavar="MODEL",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Write to this file, or into this folder, one file for each input."),
    ] = None,
) -> None:
    """Write down what is said in recordings. The text is shown as it grows; in a pipe, one line for each utterance."""
    chosen = [name for name, wanted in (("json", json), ("srt", srt), ("vtt", vtt)) if wanted]
    if len(chosen) > 1:
        raise CommandError(f"--{chosen[0]} and --{chosen[1]} exclude each other", 2)
    form = chosen[0] if chosen else "text"
    for name in files:
        if files.count(name) > 1:
            raise CommandError(f"{name} is given twice", 2)

    from streamer.commands.backends import connect
    from streamer.commands.outputs import JsonOutput, SubtitleOutput, TextOutput, destinations
    from streamer.commands.pictures import is_picture, read_lines

    hush_libraries()
    paths = destinations(files, output, form)
    out: Output
    if form == "text":
        out = TextOutput(files, paths)
    elif form == "json":
        out = JsonOutput(files, paths)
    else:
        out = SubtitleOutput(files, paths, form)
    if any(map(is_picture, files)):
        if url is not None:
            raise CommandError("the daemon takes sound: leave out --url to read a picture", 2)
        if code := read_lines(files, model, out):
            raise typer.Exit(code)
        return
    work = [Job(name) for name in files]
    options = {"numbers": numbers} if numbers else None
    backend = connect(model, url, min(jobs, len(files)), options=options, revise=wanted(revise, url))
    try:
        with screen(form, bool(paths)) as shown:
            Transcription(backend, work, rate, out, shown).run(min(jobs, len(files)))
    finally:
        backend.close()
    code = max((job.code for job in work), key=lambda code: (code == 1, code))
    if code:
        raise typer.Exit(code)


@dataclass
class Job:
    """One input. ``done`` and ``total`` in seconds, ``total`` 0 if unknown."""

    name: str
    done: float = 0.0
    total: float = 0.0
    code: int = 0
    ended: threading.Event = field(default_factory=threading.Event)


class Transcription:
    """Feeding threads, one for each file in the works, and the caller's thread, which alone writes."""

    def __init__(self, backend: Backend, jobs: Sequence[Job], rate: int, out: Output, screen: Screen | None) -> None:
        self._backend = backend
        self._jobs = jobs
        self._rate = rate
        self._out = out
        self._screen = screen
        self._todo: queue.SimpleQueue[Job] = queue.SimpleQueue()
        #: (job, event); ``None`` for an event: the job is over.
        self._inbox: queue.SimpleQueue[tuple[Job, dict[str, Any] | None]] = queue.SimpleQueue()
        self._stopped = False
        self._since = time.monotonic()
        for job in jobs:
            self._todo.put(job)

    def run(self, workers: int) -> None:
        # Daemon threads: one that waits for standard input must not keep an interrupted process alive.
        for number in range(workers):
            threading.Thread(target=self._feed_all, name=f"file {number}", daemon=True).start()
        left = len(self._jobs)
        try:
            while left:
                job, event = self._inbox.get()
                if event is None:
                    left -= 1
                self._show(job, event)
        finally:
            self._stopped = True

    # -- feeding threads ---------------------------------------------------------------------------------------------

    def _feed_all(self) -> None:
        while not self._stopped:
            try:
                job = self._todo.get_nowait()
            except queue.Empty:
                return
            try:
                self._feed(job)
            except Exception as error:  # one bad input must not end the others
                self._inbox.put((job, {"type": "failed", "error": error}))
            finally:
                self._inbox.put((job, None))

    def _feed(self, job: Job) -> None:
        source = self._open(job)
        try:
            feed = self._backend.open(source.rate, lambda event: self._take(job, event))
            try:
                self._pump(job, source, feed)
            finally:
                feed.close()
        finally:
            source.close()

    def _open(self, job: Job) -> AudioFile | RawStdin:
        from streamer.sources.files import AudioFile, RawStdin

        source = RawStdin(self._rate) if job.name == "-" else AudioFile(Path(job.name))
        job.total = source.seconds
        if source.note:
            self._inbox.put((job, {"type": "note", "message": f"{job.name}: {source.note}"}))
        return source

    def _pump(self, job: Job, source: AudioFile | RawStdin, feed: Any) -> None:
        from streamer.sources import SourceError

        try:
            for block in source.blocks():
                if self._stopped or job.ended.is_set():
                    return
                feed.send(block)
                job.done += len(block) / 2 / source.rate
        except SourceError as error:  # what came before is still worth having
            self._inbox.put((job, {"type": "failed", "error": error}))
        feed.end()
        job.ended.wait()

    def _take(self, job: Job, event: dict[str, Any]) -> None:
        """From a lane or the client's thread."""
        self._inbox.put((job, event))
        if event["type"] in ("end", "error"):
            job.ended.set()

    # -- the caller's thread -----------------------------------------------------------------------------------------

    def _show(self, job: Job, event: dict[str, Any] | None) -> None:
        kind = event["type"] if event is not None else "over"
        if event is None:
            self._out.finished(job.name, heard=job.code == 0 or job.done > 0)
            if self._screen is not None:
                self._screen.partial(job.name, "")
        elif kind in ("partial", "final", "segment"):
            self._result(job, event)
        elif kind == "audio":
            self._sound(job, event)
        elif kind == "note":
            complain(event["message"])
        elif kind == "error":
            job.code = 1
            complain(f"{job.name}: {event['message']}")
        elif kind == "failed":
            job.code = _blame(job.name, event["error"])
        if self._screen is not None:
            self._screen.status(self._progress())

    def _result(self, job: Job, event: dict[str, Any]) -> None:
        if self._screen is not None:  # before the final is printed above it
            self._screen.partial(job.name, event["text"] if event["type"] == "partial" else "")
        self._out.event(job.name, event)

    def _sound(self, job: Job, event: dict[str, Any]) -> None:
        raise CommandError("that model gives sound back: streamer enhance takes it", 2)

    def _progress(self) -> str:
        from streamer.commands.screen import clock

        done = sum(job.done for job in self._jobs)
        total = sum(job.total for job in self._jobs)
        speed = done / max(time.monotonic() - self._since, 1e-3)
        if total < done or not total:
            return f"{clock(done)}  {speed:.1f}x real time"
        filled = round(30 * done / total)
        return f"{'━' * filled}{'─' * (30 - filled)} {clock(done)} of {clock(total)}  {speed:.1f}x real time"


def wanted(revise: str | None, url: str | None) -> str | None:
    """What ``--revise`` says: the model, empty for none. A daemon has its own."""
    if url is None or revise is None:
        return None if revise is None else "" if revise == "off" else revise
    if revise not in ("on", "off"):
        raise CommandError("--revise with --url: the daemon's setting revise names the model, say on or off", 2)
    return "" if revise == "off" else revise


def screen(form: str, to_files: bool) -> Any:
    """Live lines where somebody looks: text if standard output is a terminal, progress if standard error is one."""
    from streamer.commands.screen import Screen

    if form == "text" and not to_files and sys.stdout.isatty():
        return Screen(text=True)
    busy = not to_files and sys.stdout.isatty()  # JSON or subtitles are being shown there
    return Screen(text=False) if sys.stderr.isatty() and not busy else nullcontext()


def _blame(name: str, error: Exception) -> int:
    """Report what ended a file; the exit code."""
    from streamer.sources import SourceError

    if isinstance(error, SourceError):
        complain(str(error))
        return 2
    if isinstance(error, CommandError):
        complain(f"{name}: {error}")
        return error.code
    if type(error).__module__.startswith("streamer."):
        complain(f"{name}: {error}")
        return 2 if isinstance(error, ValueError) else 1
    complain(f"{name}: {type(error).__name__}: {error}")
    return 1
