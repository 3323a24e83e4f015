"""``streamer sign``: signatures of model files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["sign"]


def sign(
    models: Annotated[
        list[Path] | None, typer.Argument(help="Model files; NAME.onnx.minisig comes beside each.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="Your secret key, of --new-key or of minisign -G -W.")] = None,
    new_key: Annotated[
        Path | None, typer.Option(help="Make a pair of keys, PATH (secret, keep it) and PATH.pub (for model_keys).")
    ] = None,
    check: Annotated[
        str | None, typer.Option(help="Instead: check the signatures by this public key, base64 or a .pub file.")
    ] = None,
    comment: Annotated[str, typer.Option(help="A line that is signed, too.")] = "",
) -> None:
    """Sign model files, so that a daemon with the setting model_keys loads them; in the formats of minisign.

    Exit code 0 if all were signed, or all signatures are valid; 2 if not.
    """
    from streamer.commands import CommandError
    from streamer.contract import signature

    paths = models or []
    if sum(given is not None for given in (key, new_key, check)) != 1 or bool(paths) == (new_key is not None):
        raise CommandError("give models and --key or --check, or --new-key alone (streamer sign --help shows how)", 2)
    if new_key is not None:
        public = new_key.with_name(new_key.name + ".pub")
        made = signature.make_key(new_key, public)
        typer.echo(f"{new_key} is secret; {public} is for the setting model_keys: {made}")
    for path in paths:
        if key is not None:
            typer.echo(str(signature.sign(path, key, comment or f"file:{path.name}")))
            continue
        assert check is not None
        try:
            note = signature.verify(path.read_bytes(), signature.signature_of(path), [signature.read_public_key(check)])
        except signature.SignatureError as error:
            raise CommandError(f"{path}: {error}", 2) from error
        typer.echo(f"{path}: signed, {note}")
