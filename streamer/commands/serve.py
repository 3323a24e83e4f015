"""``streamer serve``: the daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streamer.commands.completion import model_names

__all__ = ["serve"]


def serve(
    config: Annotated[
        Path | None, typer.Option(help="Settings in TOML. Default: $STREAMER_CONFIG, /etc/streamer/streamer.toml")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port; 0 takes a free one.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A shipped name or a path; may be given several times.", autocompletion=model_names),
    ] = None,
    numbers: Annotated[str | None, typer.Option(help="Numbers in finals: spoken (words) or written (digits).")] = None,
    text: Annotated[
        str | None, typer.Option(help="Finals: spoken (plain words) or written (punctuation, capitals).")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    log_format: Annotated[str | None, typer.Option(help="auto, json or console.")] = None,
    port_file: Annotated[
        Path | None, typer.Option(help="Write the bound port here once connections are taken.")
    ] = None,
    print_config: Annotated[bool, typer.Option("--print-config", help="Show the effective settings as TOML.")] = False,
) -> None:
    """Serve streams until SIGTERM or Ctrl-C: then finish what was received, save the sessions and exit 0."""
    from streamer.settings import Settings, SettingsError, render

    overrides = {
        "host": host,
        "port": port,
        "models": tuple(model) if model else None,
        "numbers": numbers,
        "text": text,
        "log_level": log_level,
        "log_format": log_format,
    }
    try:
        settings = Settings.load(config, overrides)
    except SettingsError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(78) from None
    if print_config:
        from streamer.serve.checked import settings_trouble, settings_warning

        typer.echo(render(settings), nl=False)
        if warning := settings_warning(settings):
            typer.echo(warning, err=True)
        if trouble := settings_trouble(settings):
            typer.echo(trouble, err=True)
            raise typer.Exit(78)
        return
    from streamer.serve.run import run

    raise typer.Exit(run(settings, config=config, port_file=port_file))
