"""``streamer generate``: text, notes or sound from a generative model."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamer.commands import CommandError, ctrl_c
from streamer.commands.completion import model_names

if TYPE_CHECKING:
    from streamer.commands.sounds import Sink
    from streamer.tasks.generate import GenerateMemory, GenerateOptions

__all__ = ["generate"]

#: Default length of output to a file, without --length and --seconds.
SECONDS = {"notes": 20.0, "audio": 1.0}


def generate(
    model: Annotated[
        str, typer.Option(help="A name, or the path of an .onnx file.", autocompletion=model_names)
    ] = "characters",
    prompt: Annotated[str, typer.Option(help="Text to begin with.")] = "",
    temperature: Annotated[
        float | None, typer.Option(min=0, max=10, help="0: always the likeliest. Default: the model's.")
    ] = None,
    top_k: Annotated[int, typer.Option(min=0, help="Draw from this many of the likeliest; 0: from all.")] = 0,
    seed: Annotated[int, typer.Option(min=1, max=2**31 - 1, help="The same seed gives the same, on any run.")] = 1,
    length: Annotated[int | None, typer.Option(min=1, help="Tokens: of text, letters. Default: until Ctrl-C.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.01, help="Of notes or sound, instead of a length.")] = None,
    conditions: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A condition of the model, e.g. digit=7.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="FILE.txt, FILE.wav, FILE.mid. Default: the terminal.")
    ] = None,
    play: Annotated[bool, typer.Option("--play", help="Sound to the loudspeaker.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One event a line.")] = False,
) -> None:
    """Let a model run on its own output: text as it comes, notes, or sound."""
    from streamer.commands.sounds import sink
    from streamer.engine.catalogue import resolve
    from streamer.engine.model import Model
    from streamer.streams.generation import Generation

    given = {"temperature": temperature, "prompt": prompt, "seed": seed, "top_k": top_k}
    wish: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    wish["conditions"] = _conditions(conditions or [])
    loaded = Model.load(resolve(model))
    try:
        generation = Generation(loaded, [wish])
    except ValueError as error:
        raise CommandError(str(error), 2) from error
    options, memory, width = generation.task.options, generation.memories[0], generation.task.width
    if seconds is not None and options.kind == "text":
        raise CommandError("text has no seconds: give a --length", 2)
    if length is None and seconds is None and not play:
        seconds = SECONDS.get(options.kind)
    to: Sink = sink(options, output, play, json)
    with ctrl_c() as interrupted:
        try:
            while (left := _left(options, memory, length, seconds)) > 0 and not interrupted.is_set():
                steps = min(loaded.manifest.steps, -(-left // width))
                for event in generation.step([steps])[0]:
                    to.event(event)
            for event in generation.finish()[0]:
                to.event(event)
        finally:
            to.close()
        if json:
            print(json_module.dumps({"type": "end", "position": memory.position}), flush=True)
    if interrupted.is_set():
        raise typer.Exit(130)


def _conditions(given: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    if bad := [text for text, (name, mark, value) in zip(given, pairs, strict=True) if not (name and mark and value)]:
        raise CommandError(f"--set {bad[0]}: is no NAME=VALUE: say for instance --set digit=seven", 2)
    return {name: value for name, _, value in pairs}


def _left(options: GenerateOptions, memory: GenerateMemory, length: int | None, seconds: float | None) -> int:
    """The number of tokens to generate; practically endless without a limit."""
    left = sys.maxsize if length is None else length - memory.position
    if seconds is not None and options.sample_rate is not None:
        left = min(left, round(seconds * options.sample_rate) - memory.position)
    if (
        seconds is not None
        and options.ticks_per_second is not None
        and memory.ticks >= seconds * options.ticks_per_second
    ):
        left = 0
    return left
