"""Written lines: turns a picture into columns of ink, and reads them, one line at a time, in this process.

Training uses these columns, too. A picture is paper and ink, either of which may be lighter; the parts above and below
the ink are cut off, the rest is scaled to the model's height. A column is a step of the stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.engine.model import Model, ModelError
from streamer.engine.stepper import Stepper
from streamer.streams.finals import WrittenFinals
from streamer.tasks import Event, TaskError
from streamer.tasks.transcribe.task import Transcribe

__all__ = ["LineReader", "PictureError", "columns", "grey"]

Picture = NDArray[np.float32]

#: Paper kept above and below, as a share of the ink's height.
MARGIN = 0.12
#: Rows with less ink than this share of the fullest row do not belong to the line.
FAINT = 0.02
#: Largest picture that is read, in pixels.
MOST_PIXELS = 2**26


class PictureError(ValueError):
    """The file is not a picture, or the picture has no line of writing."""


def grey(path: Path) -> Picture:
    """[H, W] from 0 (black) to 255. Raises :class:`PictureError`, ``OSError``, and ``ImportError`` without pillow."""
    from PIL import Image, UnidentifiedImageError

    with path.open("rb") as file:  # an error of the file system is raised as such
        try:
            with Image.open(file) as picture:
                if picture.width * picture.height > MOST_PIXELS:
                    raise PictureError(f"{path}: {picture.width} x {picture.height} pixels are too many for one line")
                rgba = picture.convert("RGBA")
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise PictureError(f"{path}: is not a picture that can be read") from error
    paper = Image.new("RGBA", rgba.size, (255, 255, 255, 255))  # white under transparent parts
    return np.asarray(Image.alpha_composite(paper, rgba).convert("L"), np.float32)


def columns(picture: Picture, height: int, margin: tuple[float, float] = (MARGIN, MARGIN)) -> Picture:
    """[H, W] of any brightness to ink [columns, height], 0 paper and 1 the darkest; ``margin`` above and below.

    Raises :class:`PictureError` where nothing is written.
    """
    from PIL import Image

    if min(picture.shape) < 2:
        raise PictureError("a picture of less than two pixels")
    middle, low, high = (float(v) for v in np.quantile(picture, [0.5, 0.002, 0.998]))
    light = high - middle < middle - low  # the median brightness is the paper
    paper, full = (middle, low) if light else (-middle, -high)
    if paper - full < 8:
        raise PictureError("nothing is written there")
    ink = np.clip((paper - (picture if light else -picture)) / (paper - full), 0, 1)
    strokes = (ink > 0.5).sum(axis=1)
    rows = np.flatnonzero(strokes > FAINT * strokes.max())
    first, behind = int(rows[0]), int(rows[-1]) + 1
    above, below = (round(share * (behind - first)) for share in margin)
    box = np.pad(ink, ((above, below), (0, 0)))[first : behind + above + below]
    size = (max(1, round(box.shape[1] * height / box.shape[0])), height)
    small = Image.fromarray(box).resize(size, Image.Resampling.BILINEAR)  # which is wide enough to leave no pixel out
    return np.ascontiguousarray(np.asarray(small, np.float32).T)


class LineReader:
    """Raises :class:`ModelError` for a file that reads no lines."""

    def __init__(self, model: Model) -> None:
        if not reads_lines(model):
            raise ModelError(f"{model.path}: reads no written lines, it takes {model.manifest.input.name}")
        try:
            self.task = WrittenFinals(Transcribe(model.manifest))
        except TaskError as error:
            raise ModelError(f"{model.path}: {error}") from error
        self.model = model
        self.height = model.manifest.input.chunk_shape[1]

    def events(self, picture: Picture, options: dict[str, Any] | None = None) -> Iterator[Event]:
        """The events of one line [H, W] as from :func:`grey`, column by column. Paper is appended after the last
        column."""
        manifest = self.model.manifest
        line = columns(picture, self.height)
        paper = manifest.flush * manifest.hop
        paper += -(len(line) + paper) % manifest.chunk
        line = np.pad(line, ((0, paper), (0, 0)))
        memory, stepper = self.task.open(options or {}), Stepper(self.model)
        for chunk in line.reshape(-1, 1, manifest.chunk, self.height):
            yield from self.task.step([memory], stepper.step(chunk), [manifest.steps])[0]
        yield from self.task.finish(memory)


def reads_lines(model: Model) -> bool:
    """Whether the model transcribes columns of grey values."""
    source = model.manifest.input
    return model.manifest.task == "transcribe" and source.sample_rate is None and len(source.chunk_shape) == 2
