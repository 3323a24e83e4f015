"""Synthetic pictures of written lines: fonts of Debian's packages, distorted, on noisy paper.

``apt install`` with these names brings the fonts: fonts-breip fonts-dkg-handwriting fonts-femkeklaver fonts-kristi
fonts-rufscript fonts-comic-neue fonts-ecolier-court fonts-humor-sans fonts-sjfonts fonts-havana fonts-kaushanscript
fonts-klee fonts-tlwg-purisa fonts-tomsontalks fonts-lobster fonts-liberation fonts-cantarell fonts-dejavu.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from streamer.streams.written_lines import MARGIN, PictureError, columns

Picture = NDArray[np.float32]
Rng = np.random.Generator

FOLDER = Path("/usr/share/fonts")
#: Families: the first letters of their files' names. Those in ``HELD`` are held out of training.
HANDS = """femkeklaver Humor-Sans KleeOne Kristi Rufscript Delphine SteveHand Purisa TomsonTalks Havana KaushanScript
lobster Ecolier Breip dkg""".split()
PRINTS = "DejaVuSans DejaVuSerif LiberationSans LiberationMono Cantarell LiberationSerif ComicNeue".split()
HELD = ["Breip", "dkg", "LiberationSerif", "ComicNeue"]
#: Fonts that are too thin for 32 rows, or have no letters.
LEFT_OUT = ["DejaVuSans-ExtraLight", "Cantarell-Thin", "DejaVuSansDisplay", "DejaVuSerifDisplay"]


def families(names: Sequence[str], folder: Path = FOLDER) -> dict[str, list[Path]]:
    """Font files by family. Raises ``FileNotFoundError`` that lists missing families."""
    files = sorted({p.stem: p for p in folder.rglob("*") if p.suffix in (".ttf", ".otf")}.items())
    found = {name: [path for stem, path in files if stem.startswith(name) and stem not in LEFT_OUT] for name in names}
    if missing := [name for name, paths in found.items() if not paths]:
        raise FileNotFoundError(
            f"{folder} has no fonts of {', '.join(missing)}: models/zoo/classify/handwriting.py lists Debian's packages"
        )
    return found


@lru_cache(maxsize=512)
def _font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size)


class Scribe:
    """Writes lines in random ``fonts`` (files by family); all families are equally likely."""

    def __init__(self, fonts: dict[str, list[Path]], seed: int) -> None:
        self.fonts, self.rng = fonts, np.random.default_rng(seed)

    def write(self, text: str, *, clean: bool = False) -> Picture:
        """A picture [H, W], 0 is black; ``clean``: not distorted, on white paper."""
        rng = self.rng
        family = list(self.fonts)[int(rng.integers(len(self.fonts)))]
        paths = self.fonts[family]
        path = paths[int(rng.integers(len(paths)))]
        size = int(rng.integers(6, 11)) * 4
        picture = _words(text, path, size, rng, 0.0 if clean else 1.0)
        if clean:
            return np.asarray(picture, np.float32)
        return _worn(np.asarray(_bent(picture, rng), np.float32), rng)

    def line(self, text: str, height: int, *, clean: bool = False) -> Picture:
        """Ink [columns, height], the input of a reader. Margins are random, as in pictures cropped by hand."""
        while True:
            picture = self.write(text, clean=clean)
            above, below = (MARGIN, MARGIN) if clean else self.rng.uniform(-0.02, 0.3, 2).clip(0)
            try:
                return columns(picture, height, (float(above), float(below)))
            except PictureError:  # the distortion has removed a thin stroke, about once in ten thousand lines
                if clean:
                    raise


def _words(text: str, path: Path, size: int, rng: Rng, loose: float) -> Image.Image:
    """A line of words. ``loose``: scale of their random sizes, gaps and distances from the baseline."""
    pieces, x = [], 1.2 * size
    for word in text.split(" "):
        font = _font(path, max(8, round(size * (1 + loose * rng.uniform(-0.08, 0.08)))))
        pieces.append((x, loose * rng.normal(0, 0.04) * size, word, font))
        x += font.getlength(word) + size * (0.3 + loose * rng.uniform(-0.1, 0.3))
    page = Image.new("L", (round(x + size), round(3 * size)), 255)
    draw = ImageDraw.Draw(page)
    for left, up, word, font in pieces:
        draw.text((left, 1.9 * size + up), word, font=font, fill=0, anchor="ls")
    ink = page.point(lambda v: 255 - v).getbbox()
    if ink is None:
        raise ValueError(f"{path.name} writes nothing for {text!r}")
    edge = round(size * (0.3 + loose * rng.uniform(-0.2, 0.5)))
    return page.crop((max(0, ink[0] - edge), max(0, ink[1] - size // 2), ink[2] + edge, ink[3] + size // 2))


def _bent(picture: Image.Image, rng: Rng) -> Image.Image:
    """A copy with random stroke width, slant, width and baseline."""
    chance = rng.random()
    if chance < 0.3:
        picture = picture.filter(ImageFilter.MinFilter(3))
    elif chance < 0.36:
        picture = picture.filter(ImageFilter.MaxFilter(3))
    slant, wide = rng.normal(0, 0.2), float(rng.uniform(0.8, 1.25))
    w, h = picture.size
    room = abs(slant) * h
    size = (round((w + room) * wide), h)
    # an output pixel is read at about x / wide + slant * (y - h), shifted into the picture
    affine = (1 / wide, slant, -(room if slant > 0 else 0.0), 0.0, 1.0, 0.0)
    picture = picture.transform(size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR, fillcolor=255)
    rows = np.asarray(picture)
    t = np.arange(rows.shape[1]) / h
    wander = 0.06 * h * rng.random() * np.sin(
        t * rng.uniform(0.1, 0.9) + rng.uniform(0, 6)
    ) + 0.012 * h * t * rng.normal(0, 0.3)
    at = (np.arange(h)[:, None] + np.round(wander).astype(np.int64)).clip(0, h - 1)
    return Image.fromarray(np.take_along_axis(rows, at, axis=0)).filter(
        ImageFilter.GaussianBlur(float(rng.uniform(0.0, 1.1)))
    )


def _worn(picture: Picture, rng: Rng) -> Picture:
    """A copy with random ink, paper, lighting and grain; one in ten is light on dark."""
    paper, ink = rng.uniform(150, 255), rng.uniform(0, 90)
    lit = np.linspace(0, rng.uniform(-30, 30), picture.shape[1], dtype=np.float32)
    grain = rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(rng.uniform(0, 14))
    page = ink + (paper - ink) / 255 * picture + lit + grain
    return np.asarray((255 - page if rng.random() < 0.1 else page).clip(0, 255), np.float32)
