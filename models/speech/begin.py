"""Helpers of commands that write a checkpoint to start from (``python -m models train RECIPE --warm FILE``)."""

from __future__ import annotations

import argparse
from pathlib import Path

from models.training.recipe import Recipe

__all__ = ["recipe_parser", "recipe_wanted"]


def recipe_parser(module: str, description: str | None, **positional: str) -> argparse.ArgumentParser:
    """A parser of ``positional`` paths (name to help), a recipe and ``-o``."""
    parser = argparse.ArgumentParser(f"python -m {module}", description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    for name, text in positional.items():
        parser.add_argument(name, type=Path, help=text)
    parser.add_argument("recipe", help="such as english")
    parser.add_argument("-o", "--output", type=Path, required=True)
    return parser


def recipe_wanted(parser: argparse.ArgumentParser, arguments: list[str] | None) -> tuple[argparse.Namespace, Recipe]:
    """The options, and the recipe that they name. Exits with status 2 if there is no such recipe or its data are
    missing."""
    from models.recipes import make

    options = parser.parse_args(arguments)
    try:
        return options, make(options.recipe)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
