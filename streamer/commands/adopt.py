"""``streamer adopt``: somebody else's stateful ONNX model, made to fit by ``export`` in the checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streamer.commands import CommandError

__all__ = ["adopt"]

#: The checkout, where there is one: ``export`` and ``onnx`` are no part of the daemon, so they run in a process of
#: their own.
ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("onnx", "onnx_ir", "onnxscript")


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
        Path | None, typer.Option("--config", "-c", metavar="TOML", help="What names and shapes do not tell.")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--compare", metavar="IN.npz OUT.npz", help="What your own host gave the model, and what it got of it."
        ),
    ] = None,
    max_batch: Annotated[int, typer.Option(min=1, help="Largest batch that is judged.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the test signals.")] = 0,
    endurance: Annotated[int, typer.Option(min=10, help="Length of the endurance run, in chunks.")] = 400,
) -> None:
    """Make a stateful ONNX model written elsewhere fit the contract, by surgery on its graph.

    A folder with the graphs and the tokens.txt of a streaming recogniser (k2, NeMo, WeNet, T-one) becomes one file that
    transcribe, listen and serve run.

    Says what was found and done, compares the new file with the old one, and holds it to the laws. docs/adopt.md has
    the conventions and the TOML. Exit code 0 if the file was written, 1 if not.
    """
    import os
    import subprocess
    import sys

    _need_checkout()
    command = [sys.executable, "-P", "-m", "export.adopt", str(model), "--max-batch", str(max_batch)]
    command += ["--seed", str(seed), "--endurance", str(endurance)]
    if compare is not None:
        command += ["--compare", *map(str, compare)]
    for option, path in (("--output", output), ("--config", config)):
        if path is not None:
            command += [option, str(path)]
    where = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    raise typer.Exit(subprocess.run(command, env={**os.environ, "PYTHONPATH": where}).returncode)


def _need_checkout() -> None:
    """Raises :class:`CommandError` that says what to install."""
    from importlib.util import find_spec

    if not (ROOT / "export" / "adopt" / "__main__.py").is_file():
        raise CommandError("adopt needs a checkout of streamer: in one, pip install -e '.[train]'", 2)
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise CommandError(f"adopt needs {', '.join(missing)}: pip install 'streamer[train]' from a checkout", 2)
