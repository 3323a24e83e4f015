"""Options of transcription that ``transcribe`` and ``listen`` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from streamer.commands import CommandError, why

__all__ = ["HotwordsOption", "NumbersOption", "ReviseOption", "TextOption", "second_pass", "stream_options"]

NumbersOption = Annotated[
    Literal["spoken", "written"] | None,
    typer.Option(help="Numbers in words or in digits. Default: spoken, or what the daemon is set to."),
]
TextOption = Annotated[
    Literal["spoken", "written"] | None,
    typer.Option(
        help="Finals: plain words, or with punctuation and capitals (English)."
        " Default: written on a terminal and for subtitles, else spoken, or what the daemon is set to."
    ),
]
HotwordsOption = Annotated[
    Path | None, typer.Option(help="Names and terms that are expected: a text file, one a line.", metavar="FILE")
]
ReviseOption = Annotated[
    str | None,
    typer.Option(
        help="Whisper model (base, a folder) that hears each final once more; of a daemon: on, or off.",
        metavar="MODEL",
    ),
]


def stream_options(numbers: str | None, text: str | None, hotwords: Path | None, *, for_people: bool) -> dict[str, Any]:
    """Stream options from command-line options. ``for_people``: the output goes to a terminal or into subtitles; then
    punctuation and capitals are the default, if this installation has the model for it."""
    if text is None and for_people:
        from streamer.engine.catalogue import WRITTEN, find_models

        text = "written" if WRITTEN in (path.stem for path in find_models()) else None
    found: dict[str, Any] = {name: value for name, value in (("numbers", numbers), ("text", text)) if value}
    return found if hotwords is None else found | {"hotwords": read_hotwords(hotwords)}


def read_hotwords(path: Path) -> list[str]:
    """The hotwords in a file, one a line; empty lines and those that begin with # are skipped."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise CommandError(f"--hotwords {path}: {why(error)}", 2) from error
    except UnicodeDecodeError as error:
        raise CommandError(
            f"--hotwords {path}: no text in UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8", 2
        ) from error
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def second_pass(revise: str | None, url: str | None) -> str | None:
    """The model that ``--revise`` names, empty for none. A daemon uses its own model."""
    if revise is None or revise == "off":
        return None if revise is None else ""
    if url is not None:
        if revise != "on":
            raise CommandError("--revise with --url: the daemon's setting revise names the model, say on or off", 2)
        return revise
    if revise == "on":
        raise CommandError("--revise on is for --url: name a Whisper model here, such as --revise base", 2)
    from streamer.streams.whisper import WhisperError, check_whisper

    try:
        check_whisper(revise)
    except WhisperError as error:
        raise CommandError(f"--revise: {error}", 2) from error
    return revise
