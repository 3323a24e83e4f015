"""``streamer classify``: segments of recordings, answers for texts."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamer.commands import CommandError, hush_libraries, why
from streamer.commands.completion import model_names
from streamer.commands.outputs import CommandOutput, JsonOutput, TextOutput
from streamer.commands.remote import CaOption, TokenOption
from streamer.commands.transcribe import ChannelOption, Job, TranscribeJob, conclude, given_once, screen

if TYPE_CHECKING:
    from streamer.streams.classification import TextClassifier

__all__ = ["classify"]

BLOCK = 2**16


def classify(
    files: Annotated[
        list[str],
        typer.Argument(help="wav, flac, ogg/opus, mp3, aiff, au; others by ffmpeg. - is stdin. Text for text models."),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="A shipped name or a path. Default: vad, or the daemon's first.", autocompletion=model_names),
    ] = None,
    url: Annotated[str | None, typer.Option(help="Let a daemon do it, e.g. ws://127.0.0.1:8765.")] = None,
    token: TokenOption = None,
    ca: CaOption = None,
    rate: Annotated[int, typer.Option(help="Sample rate of raw PCM on stdin, in Hz.", min=1)] = 16000,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", help="Recordings at a time; they share batches.", min=1, max=1024)
    ] = 4,
    on: Annotated[float | None, typer.Option(help="Probability that begins a segment.", min=0, max=1)] = None,
    off: Annotated[float | None, typer.Option(help="Probability below which it ends.", min=0, max=1)] = None,
    lines: Annotated[bool, typer.Option("--lines", help="Every line of a text is a text of its own.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One event a line: partials, segments and finals.")] = False,
    channel: ChannelOption = None,
) -> None:
    """Say what is heard and when, or what a text is. Lines are: start, end (in seconds), label, confidence."""
    given_once(files)
    out: CommandOutput = JsonOutput(files, {}) if json else SegmentLines(files, {})
    if texts := _text_model(model, url):
        for name in files:
            _read(texts, name, lines, out)
        return
    if lines:
        raise CommandError("--lines is for models that take text: leave it out, or name one with --model", 2)
    from streamer.commands.backends import connect

    hush_libraries()
    limits = {name: value for name, value in (("on", on), ("off", off)) if value is not None}
    if on is not None and off is None:
        limits["off"] = 0.6 * on  # the model's own ``off`` might be above a low ``on``
    work = [Job(name) for name in files]
    wishes = {"segments": limits} if limits else {}
    chosen = model if url else model or "vad"
    backend = connect(chosen, url, min(jobs, len(files)), task="classify", options=wishes, token=token, ca=ca)
    try:
        with screen("lines", False) as shown:
            Classification(backend, work, rate, out, shown, channel).run(min(jobs, len(files)))
    finally:
        backend.close()
    conclude(work)


class Classification(TranscribeJob):
    """:class:`TranscribeJob`'s threads, with a classifier's events."""

    def _result(self, job: Job, event: dict[str, Any]) -> None:
        if "label" not in event:
            raise CommandError("that model writes down what is said: streamer transcribe shows it", 2)
        self._out.event(job.name, event)


class SegmentLines(TextOutput):
    """Prints one line for each ended segment; for a model in mode ``final``, one for the final answer."""

    def __init__(self, names: list[str], paths: dict[str, Path]) -> None:
        super().__init__(names, paths)
        self._segmented: set[str] = set()

    def line(self, name: str, event: dict[str, Any]) -> str:
        if event["type"] == "segment":
            self._segmented.add(name)
            if event["phase"] == "end":
                return f"{event['start']:8.2f} {event['end']:8.2f}  {event['label']}  {event['confidence']:.2f}"
        if event["type"] == "final" and event["label"] is not None and name not in self._segmented:
            return f"{event['label']}  {event['scores'][event['label']]:.2f}"
        return ""


def _text_model(model: str | None, url: str | None) -> TextClassifier | None:
    """The named model if it takes text, else ``None``; the default model takes sound."""
    if url is not None or model is None:
        return None
    from streamer.engine.catalogue import resolve
    from streamer.engine.model import Model
    from streamer.streams.classification import TextClassifier

    loaded = Model.load(resolve(model))
    if loaded.manifest.task != "classify":
        raise CommandError(f"{model} is a model for another task: streamer {loaded.manifest.task} runs it", 2)
    return TextClassifier(loaded) if loaded.manifest.options.get("text") else None


def _read(texts: TextClassifier, name: str, lines: bool, out: CommandOutput) -> None:
    for text in _lines(name) if lines else [_pieces(name)]:
        for event in texts.events(text):
            out.event(name, event.to_dict())
    out.finished(name, heard=True)


def _lines(name: str) -> Iterator[list[bytes]]:
    """Each non-empty line, as soon as it is available."""
    rest = b""
    for piece in _pieces(name):
        *whole, rest = (rest + piece).split(b"\n")
        yield from ([line] for line in whole if line.strip())
    if rest.strip():
        yield [rest]


def _pieces(name: str) -> Iterator[bytes]:
    """The bytes of a file or of standard input, as they come."""
    if name == "-" and sys.stdin.isatty():
        raise CommandError("-: standard input is a terminal; pipe a text into it", 2)
    total = 0
    try:
        file = sys.stdin.fileno() if name == "-" else os.open(name, os.O_RDONLY)
        try:
            while piece := os.read(file, BLOCK):
                total += len(piece)
                yield piece
        finally:
            if name != "-":
                os.close(file)
    except OSError as error:
        raise CommandError(f"{name}: can't be read: {why(error)}", 2) from error
    if not total:
        raise CommandError(f"{name}: is empty (0 bytes): name a file with text in it", 2)
