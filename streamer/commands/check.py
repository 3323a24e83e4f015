"""``streamer check``: tests a model file against its contract and the laws, on this machine."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

from streamer.commands.completion import model_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table
    from rich.text import Text

    from streamer.contract.judge import Finding, Verdict

__all__ = ["check", "show"]

#: Lines of a screen that are assumed where there is no screen, and failing checks that even the lowest screen shows.
SCREEN, MIN_SHOWN = 24, 3


def check(
    model: Annotated[
        str, typer.Argument(help="A shipped model's name, or the path of an .onnx file.", autocompletion=model_names)
    ],
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object instead of the table.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the test signals.")] = 0,
    everything: Annotated[bool, typer.Option("--all", help="Every check, not only those that fail.")] = False,
    chunks: Annotated[int, typer.Option(min=10, help="Length of the endurance run, in chunks.")] = 400,
) -> None:
    """Test a model file against its contract, its golden example and the first three laws, on this machine.

    A line for each law, and every check that fails. Exit code 0 if it keeps them all, 1 if not, 2 if it is no model.
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
        show(verdict, everything, "" if everything else "; --all shows every check")
    raise typer.Exit(0 if verdict.ok else 2 if len(verdict.findings) == 1 else 1)


def show(verdict: Verdict, everything: bool = False, hint: str = "") -> None:
    """Print on standard output, within one screen: a line for each law, and one for each check that fails.
    ``everything``: a table of all checks instead. ``hint``: goes behind the last line."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    broken = list(verdict.refusals)
    state = Text("refused", "bold red") if broken else Text("keeps its laws", "green")
    count = f", {len(broken)} of {len(verdict.findings)} checks fail" if broken else f", {len(verdict.findings)} checks"
    summary = Text.assemble(f"{verdict.path.name}: ", state, f"{count} (seed {verdict.seed})", (hint, "dim"))
    if everything:
        console.print(_checks(verdict.findings))
    else:
        console.print(_laws(verdict.findings, console.width))
        # the header, an empty line before and behind the failures, how many more there are, and the prompt
        taken = len(_by_law(verdict.findings)) + 5 + math.ceil(len(summary) / console.width)
        room = max(MIN_SHOWN, (console.height if console.is_terminal else SCREEN) - taken)
        if broken:
            console.print()
        for finding in broken[:room]:
            if console.is_terminal:
                console.print(_failure(finding), no_wrap=True, overflow="ellipsis")
            else:
                console.print(_failure(finding), soft_wrap=True)
        if len(broken) > room:
            console.print(f"and {len(broken) - room} more that fail", style="bold red")
    console.print()
    console.print(summary, soft_wrap=not console.is_terminal)  # a line of a pipe stays one


def _by_law(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        found.setdefault(finding.law, []).append(finding)
    return found


def _laws(findings: Sequence[Finding], width: int) -> Table:
    from rich.table import Table

    numbers = ("worst measured", "allowed") if width >= 50 else ()
    table = Table("law", "", "checks", *numbers, box=None, pad_edge=False)
    for law, checks in _by_law(findings).items():
        fails = sum(not finding.ok for finding in checks)
        measured = [finding for finding in checks if finding.measured is not None and finding.tolerance]
        worst = max(measured, key=lambda finding: (finding.measured or 0.0) / (finding.tolerance or 1.0), default=None)
        count = f"{fails} of {len(checks)}" if fails else str(len(checks))
        cells = ("", "") if worst is None else _numbers(worst)
        table.add_row(law, _mark(not fails), count, *cells[: len(numbers)])
    return table


def _failure(finding: Finding) -> Text:
    """One line, the most important facts first."""
    from rich.text import Text

    measured, allowed = _numbers(finding)
    numbers = f"{measured}, allowed {allowed}" if measured and allowed else ""
    reason = "; ".join(filter(None, (numbers, finding.detail)))
    return Text.assemble(("FAILS", "bold red"), f" {finding.law}, {finding.check}{': ' * bool(reason)}{reason}")


def _checks(findings: Sequence[Finding]) -> Table:
    from rich.table import Table

    table = Table("law", "check", "", "measured", "allowed", "detail", box=None, pad_edge=False)
    for finding in findings:
        table.add_row(finding.law, finding.check, _mark(finding.ok), *_numbers(finding), finding.detail)
    return table


def _mark(ok: bool) -> str:
    return "[green]ok[/]" if ok else "[bold red]FAILS[/]"


def _numbers(finding: Finding) -> tuple[str, str]:
    return (
        "" if finding.measured is None else f"{finding.measured:.1e}" if finding.measured else "0",
        "" if finding.tolerance is None else f"{finding.tolerance:.0e}",
    )
