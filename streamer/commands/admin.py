"""``streamer sessions``, ``drain`` and ``reload``: an administrator's requests to a running daemon."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from streamer.commands import CommandError
from streamer.commands.remote import CaOption, TokenOption, advice

if TYPE_CHECKING:
    from streamer.serve.moving.peer import Peer

__all__ = ["drain", "reload", "sessions"]

Url = Annotated[str, typer.Option("--url", help="The daemon.")]
Owner = Annotated[str, typer.Option("--owner", help="The stream's owner, where there are tokens.")]
Id = Annotated[str, typer.Argument(help="The stream's id or key.")]
HERE = "http://127.0.0.1:8765"
#: Seconds for all streams and sensors of a daemon to move, and for a model to be judged.
LONG = 3600.0

sessions = typer.Typer(
    no_args_is_help=True, help="List a daemon's streams, take one out as a file, bring one in, put one to sleep."
)


@sessions.command("list")
def list_sessions(
    url: Url = HERE,
    token: TokenOption = None,
    ca: CaOption = None,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List every stream, awake or asleep: its position, and how much of it is on the disk."""
    peer, after = _peer(url, token, ca), ""
    while True:
        page = _ask(peer, "GET", "/v1/sessions", after=after)
        for one in page["sessions"]:
            whose = f"{one['owner']}/" if "owner" in one else ""
            if json_output:
                typer.echo(json.dumps(one))
            elif "error" in one:
                typer.echo(f"{whose}{one['stream']}\t{one['state']}\t{one['error']}")
            else:
                facts = f"{one['state']}\t{one['model']}\t{one['position']} ({one['acknowledged']} safe)"
                typer.echo(f"{whose}{one['stream']}\t{facts}\t{one['age_seconds']:.0f} s")
        if not (after := page.get("after", "")):
            return


@sessions.command("export")
def export_session(
    id: Id,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: standard output.")] = None,
    owner: Owner = "",
    url: Url = HERE,
    token: TokenOption = None,
    ca: CaOption = None,
) -> None:
    """Copy a stream into a file, as it would sleep. The stream goes on; its later rows are not in the file."""
    data = _bytes(_peer(url, token, ca), "GET", f"/v1/sessions/{quote(id)}", owner=owner)
    if output is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        output.write_bytes(data)


@sessions.command("import")
def import_session(
    id: Id,
    file: Annotated[Path, typer.Argument(help="What export wrote; - for standard input.")],
    owner: Owner = "",
    url: Url = HERE,
    token: TokenOption = None,
    ca: CaOption = None,
) -> None:
    """Bring in a stream from a file. It sleeps until a client resumes it. The daemon refuses a stream of another model
    file than its own."""
    data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    found = json.loads(_bytes(_peer(url, token, ca), "PUT", f"/v1/sessions/{quote(id)}", data, owner=owner))
    typer.echo(f"{found['stream']}\t{found['model']}\t{found['position']}")


@sessions.command("evict")
def evict_session(id: Id, owner: Owner = "", url: Url = HERE, token: TokenOption = None, ca: CaOption = None) -> None:
    """Put a stream to sleep; its client wakes it with the next row."""
    _bytes(_peer(url, token, ca), "POST", f"/v1/sessions/{quote(id)}/evict", owner=owner)


def drain(
    to: Annotated[str, typer.Option("--to", help="The daemon that goes on: http://HOST:PORT, as clients reach it.")],
    url: Url = HERE,
    token: TokenOption = None,
    ca: CaOption = None,
    to_token: Annotated[str | None, typer.Option("--to-token", help="A token for the other daemon.")] = None,
) -> None:
    """Move every stream and sensor to another daemon. Clients follow; new ones are sent there until this one stops."""
    asked = {"to": to} | ({} if to_token is None else {"token": to_token})
    found = _ask(_peer(url, token, ca, LONG), "POST", "/v1/drain", asked)
    for what, result in found.items():
        typer.echo(f"{what}\t{result['moved']} moved, {len(result['left'])} left")
        for name, why in result["left"].items():
            typer.echo(f"  {name}: {why}", err=True)
    if any(result["left"] for result in found.values()):
        raise typer.Exit(1)


def reload(url: Url = HERE, token: TokenOption = None, ca: CaOption = None) -> None:
    """Load model files that changed: new streams take the new version, running streams finish on the old one; sensors
    change to the new one."""
    found = _ask(_peer(url, token, ca, LONG), "POST", "/v1/reload")
    failed = False
    for name, result in found["models"].items():
        failed |= result["outcome"] == "failed"
        typer.echo(f"{name}\t{result['outcome']}\t{result.get('error') or result.get('version', '')}")
    if failed:
        raise typer.Exit(1)


def _peer(url: str, token: str | None, ca: Path | None, seconds: float = 60.0) -> Peer:
    from streamer.serve.moving.peer import Peer, PeerError

    try:
        return Peer(url, token, seconds, ca)
    except PeerError as error:
        raise CommandError(str(error), 2) from error


def _bytes(peer: Peer, method: str, path: str, body: bytes | None = None, **query: str) -> bytes:
    from streamer.serve.moving.peer import PeerError

    try:
        return peer.ask(method, path, body, None, **query)
    except PeerError as error:
        raise CommandError(advice(error)) from error


def _ask(peer: Peer, method: str, path: str, body: Any = None, **query: str) -> Any:
    return json.loads(_bytes(peer, method, path, None if body is None else json.dumps(body).encode(), **query))
