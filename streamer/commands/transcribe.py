"""``streamer transcribe``: transcribes files and standard input."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from streamer.commands import CommandError, complain, hush_libraries
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
    from streamer.commands.backends import Backend
    from streamer.commands.outputs import CommandOutput
    from streamer.commands.screen import Screen
    from streamer.sources.channels import Channel
    from streamer.sources.files import AudioFile
    from streamer.sources.raw import RawSound

__all__ = ["ChannelOption", "Job", "TranscribeJob", "conclude", "given_once", "screen", "transcribe"]

#: From this many inputs on a summary is printed at the end, even if all of them were read.
SUMMED = 10

ChannelOption = Annotated[
    Literal["left", "right", "mix"] | None,
    typer.Option(help="Of several channels. Default: mix, but the louder one where they cancel each other."),
]


def transcribe(
    files: Annotated[
        list[str],
        typer.Argument(
            help="wav, flac, ogg/opus, mp3, aiff, au; others by ffmpeg. - is stdin: those or raw PCM (s16le, mono).",
            metavar="FILE",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="A shipped name (streamer models lists them) or a path.", autocompletion=model_names),
    ] = None,
    url: Annotated[str | None, typer.Option(help="Let a daemon do it, e.g. ws://127.0.0.1:8765.")] = None,
    token: TokenOption = None,
    ca: CaOption = None,
    rate: Annotated[int, typer.Option(help="Sample rate of raw PCM on stdin, in Hz.", min=1)] = 16000,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", help="Files at a time; they share batches.", min=1, max=1024)
    ] = 4,
    json: Annotated[
        bool, typer.Option("--json", help="One event a line: partials and finals with word times.")
    ] = False,
    srt: Annotated[bool, typer.Option("--srt", help="Subtitles (SubRip).")] = False,
    vtt: Annotated[bool, typer.Option("--vtt", help="Subtitles (WebVTT).")] = False,
    numbers: NumbersOption = None,
    text: TextOption = None,
    hotwords: HotwordsOption = None,
    revise: ReviseOption = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Write to this file, or into this folder, one file for each input."),
    ] = None,
    channel: ChannelOption = None,
) -> None:
    """Write down what is said in recordings. The text is shown as it grows; in a pipe, one line for each utterance."""
    chosen = [name for name, wanted in (("json", json), ("srt", srt), ("vtt", vtt)) if wanted]
    if len(chosen) > 1:
        raise CommandError(f"--{chosen[0]} and --{chosen[1]} exclude each other: leave one out", 2)
    form = chosen[0] if chosen else "text"
    given_once(files)

    from streamer.commands.backends import connect
    from streamer.commands.outputs import JsonOutput, SubtitleOutput, TextOutput, destinations
    from streamer.commands.pictures import is_picture, read_lines

    hush_libraries()
    paths = destinations(files, output, form)
    out: CommandOutput
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
    for_people = form in ("srt", "vtt") or (form == "text" and not paths and sys.stdout.isatty())
    options = stream_options(numbers, text, hotwords, for_people=for_people)
    backend = connect(
        model, url, min(jobs, len(files)), options=options, revise=second_pass(revise, url), token=token, ca=ca
    )
    try:
        with screen(form, bool(paths)) as shown:
            TranscribeJob(backend, work, rate, out, shown, channel).run(min(jobs, len(files)))
    finally:
        backend.close()
    conclude(work)


def given_once(files: Sequence[str]) -> None:
    """Check the inputs. Raises :class:`CommandError` if one is named twice."""
    for name, times in Counter(files).items():
        if times > 1:
            raise CommandError(f"{name} is given twice: name it once", 2)


def conclude(work: Sequence[Job]) -> None:
    """Print a summary of many inputs; the exit code, of which 1 takes precedence over 2 and 2 over 0."""
    failed = [job for job in work if job.code]
    if len(work) >= SUMMED or (failed and len(work) > 1):
        count = f"{len(work) - len(failed)} of {len(work)} inputs were read"
        complain(f"{count}, {len(failed)} not, or not whole: {failed[0].name} is the first" if failed else count)
    if failed:
        raise typer.Exit(max((job.code for job in failed), key=lambda code: (code == 1, code)))


@dataclass
class Job:
    """One input. ``done`` and ``total`` in seconds, ``total`` 0 if unknown."""

    name: str
    done: float = 0.0
    total: float = 0.0
    code: int = 0
    ended: threading.Event = field(default_factory=threading.Event)


class TranscribeJob:
    """Feeding threads, one for each file in progress, and the caller's thread, which does all the writing."""

    def __init__(
        self,
        backend: Backend,
        jobs: Sequence[Job],
        rate: int,
        out: CommandOutput,
        screen: Screen | None,
        channel: Channel | None = None,
    ) -> None:
        self._channel = channel
        self._done = self._total = 0.0  # seconds of inputs that are over
        self._over = 0
        self._running: list[Job] = []
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
        source = self._source(job)
        self._running.append(job)
        try:
            feed = self._backend.open(source.rate, lambda event: self._take(job, event))
            try:
                self._pump(job, source, feed)
            finally:
                feed.close()
        finally:
            source.close()

    def _source(self, job: Job) -> AudioFile | RawSound:
        from streamer.sources.files import open_sound

        def say(message: str) -> None:
            self._inbox.put((job, {"type": "note", "message": message}))

        source = open_sound(job.name, self._rate, self._channel, say)
        job.total = source.seconds
        return source

    def _pump(self, job: Job, source: AudioFile | RawSound, feed: Any) -> None:
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
        """Called from a lane or the client's thread."""
        self._inbox.put((job, event))
        if event["type"] in ("end", "error"):
            job.ended.set()

    # -- the caller's thread -----------------------------------------------------------------------------------------

    def _show(self, job: Job, event: dict[str, Any] | None) -> None:
        kind = event["type"] if event is not None else "over"
        if event is None:
            self._count(job)
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

    def _count(self, job: Job) -> None:
        """Count an input that has ended."""
        self._over += 1
        self._done += job.done
        self._total += job.total or job.done
        if job in self._running:
            self._running.remove(job)

    def _progress(self) -> str:
        from streamer.commands.screen import clock

        running = list(self._running)
        done = self._done + sum(job.done for job in running)
        total = self._total + sum(job.total for job in running)
        speed = done / max(time.monotonic() - self._since, 1e-3)
        count = f"{self._over} of {len(self._jobs)} inputs  " if len(self._jobs) > 1 else ""
        if self._over + len(running) < len(self._jobs):  # the others' lengths are not known
            share, of = self._over / len(self._jobs), ""
        elif total < done or not total:
            return f"{count}{clock(done)}  {speed:.1f}x real time"
        else:
            share, of = done / total, f" of {clock(total)}"
        filled = round(30 * share)
        return f"{'━' * filled}{'─' * (30 - filled)} {count}{clock(done)}{of}  {speed:.1f}x real time"


def screen(form: str, to_files: bool) -> Any:
    """Live lines on a terminal: text if standard output is one, progress if only standard error is one."""
    from streamer.commands.screen import Screen

    if form == "text" and not to_files and sys.stdout.isatty():
        return Screen(text=True)
    busy = not to_files and sys.stdout.isatty()  # JSON or subtitles are being shown there
    return Screen(text=False) if sys.stderr.isatty() and not busy else nullcontext()


def _blame(name: str, error: Exception) -> int:
    """Report the error that ended a file; the exit code."""
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
