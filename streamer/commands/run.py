"""``streamer run``: runs any model on rows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamer.commands import CommandError, ctrl_c
from streamer.commands.completion import model_names

if TYPE_CHECKING:
    from streamer.contract.manifest import Manifest
    from streamer.streams.local import Arrays, LocalStream

__all__ = ["run"]


def run(
    model: Annotated[str, typer.Argument(help="A name, or the path of an .onnx file.", autocompletion=model_names)],
    rows: Annotated[str, typer.Argument(help="rows.csv, rows.ndjson, rows.npy, rows.npz (several inputs), or - .")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="FILE.csv, FILE.ndjson, FILE.npy or FILE.npz. Default: standard output."),
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="csv, ndjson, npy or npz. Default: by the output's name, else csv.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Columns of a CSV that are the row, in this order: a,b,c. Default: all.")
    ] = None,
    conditions: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A condition of the stream: speaker=0.1,0.2 or @FILE.npy."),
    ] = None,
) -> None:
    """Run a model on rows, from its start: a line of output for each step.

    A row of a CSV holds the numbers of one step: those of every input, one input behind the other. A line of NDJSON is
    a list, or an object with each input by name. Rows are run as they come, so an endless pipe is served, too.
    """
    from streamer.commands.run_input import read_rows
    from streamer.commands.run_output import make_writer
    from streamer.streams.local import load

    loaded = load(model)
    kind = format_ or (output.suffix.removeprefix(".") if output is not None else "csv")
    try:
        stream = loaded.stream(_conditions(conditions or [], loaded.manifest))
        wanted = columns.split(",") if columns else None
        with (
            ctrl_c() as interrupted,
            read_rows(rows, loaded.manifest, wanted) as source,
            make_writer(kind, output, loaded.manifest) as writer,
        ):
            for piece in source:
                for outputs in _steps(stream, piece):
                    writer.write(outputs)
                if interrupted.is_set():
                    break
            writer.write(stream.finish())
    except ValueError as error:
        raise CommandError(str(error), 2) from error
    if interrupted.is_set():
        raise typer.Exit(130)
    steps = writer.steps
    print(f"{stream.position} rows, {steps} step{'s' * (steps != 1)} of output", file=sys.stderr)


def _steps(stream: LocalStream, piece: dict[str, Any]) -> Iterator[Arrays]:
    """Outputs of a piece. If the stream refuses it, its rows are run one by one, as far as they are right. Raises
    :class:`BadRows` with the number of the wrong row."""
    from streamer.refusals import BadRows

    try:
        yield stream.step(piece)
    except BadRows:
        for at in range(max(map(len, piece.values()))):
            try:
                yield stream.step({name: rows[at : at + 1] for name, rows in piece.items()})
            except BadRows as error:
                raise BadRows(f"row {stream.position + 1}: {error}") from None


def _conditions(given: list[str], manifest: Manifest) -> dict[str, Any]:
    import numpy as np

    found: dict[str, Any] = {}
    shapes = {condition.name: condition.shape for condition in manifest.conditions}
    for text in given:
        name, mark, value = text.partition("=")
        if not mark or not value:
            raise CommandError(f"--set {text}: is no NAME=VALUE: say for instance --set speaker=3", 2)
        if value.startswith("@"):
            array = np.load(value[1:], allow_pickle=False)
        else:
            try:
                array = np.array([float(part) for part in value.split(",")])
            except ValueError:
                raise CommandError(
                    f"--set {name}: {value!r} is no list of numbers: say 1,2,3 or @FILE.npy", 2
                ) from None
        shape = shapes.get(name, array.shape)
        found[name] = array.reshape(shape) if array.size == np.prod(shape) else array
    return found
