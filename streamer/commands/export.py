"""``streamer export``: exports the user's PyTorch module to a model file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["export"]


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE.py:FUNCTION",
            help="A function that returns (module, example, states); or package.module:FUNCTION.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write (default: FUNCTION's file, as .onnx, here).")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="A state_dict or checkpoint of torch.save, or safetensors.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(metavar="A,B,C", help="What the first output's values stand for: the file classifies.")
    ] = None,
    sample_rate: Annotated[
        int | None, typer.Option(min=1, help="Hz: the input is sound, and the file takes 16-bit samples.")
    ] = None,
    step_seconds: Annotated[float, typer.Option(min=0, help="Time between two rows; 0: any.")] = 0.0,
    whole: Annotated[
        bool, typer.Option(help="Test that one call with many steps gives what many calls give, if forward takes one.")
    ] = True,
    name: Annotated[str | None, typer.Option(help="Name of the model (default: the file's).")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the weights, for the manifest.")] = None,
    max_batch: Annotated[int, typer.Option(min=1, help="Largest batch that is judged.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the test signals.")] = 0,
    endurance: Annotated[int, typer.Option(min=10, help="Length of the endurance run, in chunks.")] = 400,
) -> None:
    """Make one file of your own torch.nn.Module, judged and compared with PyTorch, that serve and run take.

    The forward takes the new rows and the state, and returns outputs and the new state. The function returns the
    module, an example of one call's input, and the state at the start of a stream; or a dictionary with these and
    whatever else export.export() takes. docs/own-model.md walks through eight modules. Exit code 0 if the file was
    written, 1 if not.
    """
    from streamer.commands.tools import ONNX, run_tool

    arguments = [source, "--max-batch", str(max_batch), "--seed", str(seed), "--endurance", str(endurance)]
    arguments += ["--step-seconds", str(step_seconds), *([] if whole else ["--no-whole"])]
    for option, value in (
        ("--output", output),
        ("--weights", weights),
        ("--labels", labels),
        ("--sample-rate", sample_rate),
        ("--name", name),
        ("--licence", licence),
    ):
        if value is not None:
            arguments.append(f"{option}={value}")
    needs = {"torch": "your own PyTorch, pip install torch", **ONNX}
    folder = Path() if output is None else output.parent
    raise typer.Exit(run_tool("export", "export.command", arguments, needs, source=source, folder=folder))
