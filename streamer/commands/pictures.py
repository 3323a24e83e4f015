"""Pictures of written lines among the inputs of ``streamer transcribe``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from streamer.commands import CommandError, complain
from streamer.commands.outputs import CommandOutput

__all__ = ["PICTURES", "is_picture", "read_lines"]

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})


def is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in PICTURES


def read_lines(names: Sequence[str], model: str | None, out: CommandOutput) -> int:
    """Read one line of writing from each file; the exit code. Raises :class:`CommandError` if no file can be read."""
    from streamer.engine.catalogue import resolve
    from streamer.engine.model import Model, ModelError
    from streamer.streams.written_lines import LineReader, PictureError, grey

    if strange := [name for name in names if not is_picture(name)]:
        raise CommandError(f"{strange[0]} is no picture, the others are: ask for them apart", 2)
    if model is None:
        raise CommandError("a picture needs a model that reads lines: --model written-line", 2)
    try:
        reader = LineReader(Model.load(resolve(model)))
    except ModelError as error:
        raise CommandError(str(error), 2) from error
    code = 0
    for name in names:
        try:
            for event in reader.events(grey(Path(name))):
                out.event(name, event.to_dict())
        except ImportError as error:
            raise CommandError("pictures need pillow: pip install pillow", 2) from error
        except (PictureError, OSError) as error:
            message = str(error)
            complain(message if message.startswith(name) else f"{name}: {getattr(error, 'strerror', None) or message}")
            code = 2
        out.finished(name, heard=True)
    return code
