"""``streamer adopt``: makes a stateful ONNX model from elsewhere fit the contract, by ``export.adopt``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["adopt"]


def adopt(
    model: Annotated[
        Path, typer.Argument(help="A stateful ONNX model from elsewhere, or the folder of a streaming recogniser.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="File to write (default: NAME.streamer.onnx beside the model, or in the folder)."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", metavar="TOML", help="What names and shapes do not show.")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--compare", metavar="IN.npz OUT.npz", help="Inputs that your own host gave the model, and its outputs."
        ),
    ] = None,
    max_batch: Annotated[int, typer.Option(min=1, help="Largest batch that is judged.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the test signals.")] = 0,
    endurance: Annotated[int, typer.Option(min=10, help="Length of the endurance run, in chunks.")] = 400,
) -> None:
    """Make a stateful ONNX model written elsewhere fit the contract, by surgery on its graph.

    A folder with the graphs and the tokens.txt of a streaming recogniser (k2, NeMo, WeNet, T-one) becomes one file that
    transcribe, listen and serve run.

    Reports what was found and done, compares the new file with the old one, and tests it against the laws.
    docs/adopt.md has the conventions and the TOML. Exit code 0 if the file was written, 1 if not.
    """
    from streamer.commands.tools import ONNX, run_tool

    arguments = [str(model), "--max-batch", str(max_batch), "--seed", str(seed), "--endurance", str(endurance)]
    if compare is not None:
        arguments += ["--compare", *map(str, compare)]
    for option, path in (("--output", output), ("--config", config)):
        if path is not None:
            arguments += [option, str(path)]
    folder = output.parent if output is not None else model if model.is_dir() else model.parent
    raise typer.Exit(run_tool("adopt", "export.adopt", arguments, ONNX, source=str(model), folder=folder))
