"""``streamer check``: tests a model file against its contract and the laws, on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from streamer.commands.completion import model_names

if TYPE_CHECKING:
    from streamer.contract.judge import Finding, Verdict

__all__ = ["check", "show"]


def check(
    model: Annotated[
        str, typer.Argument(help="A shipped model's name, or the path of an .onnx file.", autocompletion=model_names)
    ],
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object instead of the table.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the test signals.")] = 0,
    chunks: Annotated[int, typer.Option(min=10, help="Length of the endurance run, in chunks.")] = 400,
) -> None:
    """Hold a model file to its contract, its golden example and the first three laws, on this machine.

    Exit code 0 if it keeps them all, 1 if not.
    """
    from streamer.contract.judge import Finding, Verdict
    from streamer.engine.catalogue import resolve
    from streamer.engine.model import ModelError
    from streamer.engine.proof import judge_file

    try:
        verdict = judge_file(resolve(model), seed=seed, long_chunks=chunks)
    except ModelError as error:
        from pathlib import Path

        verdict = Verdict(Path(model), seed, (Finding("contract", "file exists", False, detail=str(error)),))
    if json_output:
        import json

        typer.echo(json.dumps(verdict.to_dict(), default=str))
    elif len(verdict.findings) == 1:  # it could not even be loaded: there is no table to show
        typer.echo(f"streamer: {verdict.findings[0].detail}", err=True)
    else:
        show(verdict)
    raise typer.Exit(0 if verdict.ok else 1)


def show(verdict: Verdict) -> None:
    """Print the findings as a table on standard output."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("law", "check", "", "measured", "allowed", "detail", box=None, pad_edge=False)
    for finding in verdict.findings:
        mark = "[green]ok[/]" if finding.ok else "[bold red]FAILS[/]"
        table.add_row(finding.law, finding.check, mark, *_numbers(finding), finding.detail)
    console.print(table)
    broken = len(verdict.refusals)
    state = "[bold red]refused[/]" if broken else "[green]keeps its laws[/]"
    count = f", {broken} of {len(verdict.findings)} checks fail" if broken else f", {len(verdict.findings)} checks"
    console.print(f"\n{verdict.path.name}: {state}{count} (seed {verdict.seed})", highlight=False)


def _numbers(finding: Finding) -> tuple[str, str]:
    return (
        "" if finding.measured is None else f"{finding.measured:.1e}" if finding.measured else "0",
        "" if finding.tolerance is None else f"{finding.tolerance:.0e}",
    )
