"""``streamer token``: who may use a daemon."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamer.commands import CommandError, complain

if TYPE_CHECKING:
    from streamer.serve.access.tokens import Token, TokenFile

__all__ = ["token"]

token = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

ConfigOption = Annotated[
    Path | None, typer.Option(help="The daemon's settings. Default: $STREAMER_CONFIG, /etc/streamer/streamer.toml")
]
FileOption = Annotated[Path | None, typer.Option(help="The file of tokens, instead of the one that the settings name.")]


@token.command()
def add(
    name: Annotated[str, typer.Argument(help="Its name in lists: 1 to 64 printable characters.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="stream (streams), read (forecasts, metrics), write (readings), admin (all). Default: stream."
        ),
    ] = None,
    owner: Annotated[
        str | None, typer.Option(help="Owner of the streams it opens and sees; tokens may share one. Default: NAME.")
    ] = None,
    max_streams: Annotated[int | None, typer.Option(help="Streams that the owner may have awake.", min=0)] = None,
    requests_per_second: Annotated[float | None, typer.Option(help="Requests a second.", min=0.001)] = None,
    bytes_per_second: Annotated[float | None, typer.Option(help="Bytes sent a second.", min=1)] = None,
    config: ConfigOption = None,
    file: FileOption = None,
) -> None:
    """Make a token. It goes to standard output, once: only its hash is kept."""
    from pydantic import ValidationError

    from streamer.serve.access.tokens import Token, digest, new_secret, now

    secret = new_secret()
    try:
        made = Token(
            name=name,
            owner=owner or name,
            sha256=digest(secret),
            scopes=frozenset(scope or ["stream"]),
            max_streams=max_streams,
            requests_per_second=requests_per_second,
            bytes_per_second=bytes_per_second,
            created=now(),
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise CommandError(f"{first['loc'][0]}: {first['msg']}", 2) from None
    found = _file(config, file)
    fresh = not found.exists()
    _try(lambda: found.add(made))
    typer.echo(secret)
    complain(f"{_line(made)}; kept in {found.path}")
    if fresh:
        complain("from now on clients need a token; a running daemon notices within seconds")


@token.command("list")
def list_tokens(
    json_output: Annotated[bool, typer.Option("--json", help="One JSON array instead of lines.")] = False,
    config: ConfigOption = None,
    file: FileOption = None,
) -> None:
    """List the tokens: name, owner, scopes, limits; never the secrets themselves."""
    found = _file(config, file)
    tokens: list[Token] = []
    _try(lambda: tokens.extend(found.read()))
    if json_output:
        import json

        listed = [each.model_dump(mode="json", exclude={"sha256"}, exclude_none=True) for each in tokens]
        typer.echo(json.dumps([{**each, "scopes": sorted(each["scopes"])} for each in listed]))
        return
    for each in tokens:
        typer.echo(_line(each))
    if not tokens:
        state = "no client is admitted" if found.exists() else "no client needs one"
        complain(f"there is no token in {found.path}: {state}")


@token.command()
def remove(
    name: Annotated[str, typer.Argument(help="As streamer token list shows it.")],
    config: ConfigOption = None,
    file: FileOption = None,
) -> None:
    """Remove a token. A running daemon knows within seconds, and closes the connections that it opened."""
    found = _file(config, file)
    _try(lambda: found.remove(name))
    complain(f"removed {name}")
    if not found.read():
        complain(f"no token is left: no client is admitted (to need none, delete {found.path} and restart)")


def _file(config: Path | None, file: Path | None) -> TokenFile:
    from streamer.serve.access.tokens import TokenFile, token_path
    from streamer.settings import Settings, SettingsError

    if file is not None:
        return TokenFile(file)
    try:
        return TokenFile(token_path(Settings.load(config)))
    except SettingsError as error:
        raise CommandError(str(error), 2) from None


def _try(call: Callable[[], object]) -> None:
    from streamer.serve.access.tokens import TokenFileError

    try:
        call()
    except TokenFileError as error:
        raise CommandError(str(error), 2) from None


def _line(each: Token) -> str:
    limits = {
        "streams": each.max_streams,
        "requests a second": each.requests_per_second,
        "bytes a second": each.bytes_per_second,
    }
    bounds = ", ".join(f"{value:.12g} {what}" for what, value in limits.items() if value is not None)
    scopes = ", ".join(sorted(each.scopes))
    whose = "" if each.owner == each.name else f" of {each.owner}"
    return f"{each.name}{whose}: {scopes}{'; at most ' + bounds if bounds else ''}; made {each.created or 'long ago'}"
