"""``streamer models``: lists the installed models."""

from __future__ import annotations

import shutil
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["models"]


def models(
    json_output: Annotated[bool, typer.Option("--json", help="One JSON array instead of the table.")] = False,
) -> None:
    """List the installed models: task, licence, size, what they were trained on and how well they do."""
    from streamer.engine.catalogue import find_models

    rows = [_facts(path) for path in find_models()]
    if json_output:
        import json

        typer.echo(json.dumps(rows))
        return
    if not rows:
        typer.echo("no models are installed; python -m export makes one from a checkpoint")
        return
    print("\n\n".join(_show(row) for row in rows))


def _show(row: dict[str, Any]) -> str:
    """Print a few lines for one model; scores and licences are too long for a table."""
    if "error" in row:
        return f"{row['name']}: broken: {row['error']}"
    rate = "" if row["sample_rate"] is None else f", {row['sample_rate'] / 1000:g} kHz"
    pace = f"chunks of {row['chunk_seconds'] * 1000:g} ms" if row["sample_rate"] else "reading by reading"
    facts = f"{row['task']}{rate}, {pace}"
    sizes = f"{row['bytes'] / 1e6:.1f} MB, {row['state_bytes'] / 1024:.0f} KiB of state for each stream"
    lines = [f"{row['name']} {row['version']}: {facts}; {sizes}"]
    lines += [f"  {value:<8.3g}{name}" for name, value in row["scores"].items()]
    for title, text in (("data", row["data"]), ("licence", row["licence"])):
        if text:
            width = max(40, shutil.get_terminal_size().columns)
            lines.append(textwrap.fill(f"{title}: {text}", width, initial_indent="  ", subsequent_indent="    "))
    return "\n".join(lines)


def _facts(path: Path) -> dict[str, Any]:
    """One model's facts. A shipped file that can't be loaded is listed with its error."""
    from streamer.engine.model import Model, ModelError

    try:
        manifest = Model.load(path).manifest
    except ModelError as error:
        return {"name": path.stem, "file": str(path), "error": str(error)}
    return {
        "name": manifest.name,
        "version": manifest.version,
        "task": manifest.task,
        "licence": manifest.licence,
        "description": manifest.description,
        "file": str(path),
        "bytes": path.stat().st_size,
        "sample_rate": manifest.input.sample_rate,
        "chunk_seconds": manifest.chunk_seconds,
        "state_bytes": manifest.state_bytes,
        "max_batch": manifest.max_batch,
        "data": manifest.provenance.data,
        "scores": manifest.provenance.scores,
    }
