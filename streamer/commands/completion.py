"""``streamer completion``: scripts with which a shell completes commands, options, and models by name."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

__all__ = ["VARIABLE", "completion", "model_names", "prepare"]

#: The shell asks by this variable; typer makes it of the command's name.
VARIABLE = "_STREAMER_COMPLETE"


def completion(shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="The shell in use.")]) -> None:
    """Print the script with which a shell completes commands, options and models on Tab."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    typer.echo(get_completion_script(prog_name="streamer", complete_var=VARIABLE, shell=shell))


def prepare() -> None:
    """Have typer answer its own completion scripts. Call this before the command line is parsed."""
    from typer.completion import completion_init  # type: ignore[attr-defined]

    completion_init()


def model_names(incomplete: str) -> list[str]:
    """Shipped models whose names begin with ``incomplete``; where none does, the shell completes paths."""
    from streamer.engine.catalogue import find_models

    return [path.stem for path in find_models() if path.stem.startswith(incomplete)]
