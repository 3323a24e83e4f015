"""The baseline of the line reader: letters, separated by columns without ink, are classified by nearest template."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.zoo.classify.handwriting import Scribe

Picture = NDArray[np.float32]

#: Columns that a letter is scaled to, and the smallest gap between words as a share of the height.
WIDTH, GAP = 16, 0.2


class Templates:
    """Templates of every letter of ``alphabet`` in every font, written clean beside letters that fix the height."""

    def __init__(self, fonts: dict[str, list[Path]], alphabet: list[str], height: int) -> None:
        self.height = height
        self.letters: list[str] = []
        rows = []
        for name, paths in fonts.items():
            for path in paths:
                scribe = Scribe({name: [path]}, 1)
                for letter in alphabet:
                    pieces = cut(scribe.line(f"lp  {letter}  lp", height, clean=True))[0]
                    if len(pieces) == 5:
                        rows.append(shape(pieces[2]))
                        self.letters.append(letter)
        self.rows = np.stack(rows)

    def read(self, ink: Picture) -> str:
        """The text of ``ink`` [columns, height]."""
        pieces, gaps = cut(ink)
        if not pieces:
            return ""
        each = np.stack([shape(piece) for piece in pieces])
        nearest = (each @ self.rows.T).argmax(axis=1)
        spaces = [" " if gap > GAP * self.height else "" for gap in gaps]
        return "".join(space + self.letters[i] for space, i in zip(spaces, nearest.tolist(), strict=True))


def cut(ink: Picture) -> tuple[list[Picture], list[int]]:
    """Pieces [columns, height] between columns without ink, and the gap in columns before each (0 before the first)."""
    full = np.concatenate([[False], (ink > 0.45).any(axis=1), [False]])
    edges = np.flatnonzero(np.diff(full)).reshape(-1, 2)
    gaps = [0, *(edges[1:, 0] - edges[:-1, 1]).tolist()] if len(edges) else []
    return [ink[first:behind] for first, behind in edges], gaps


def shape(piece: Picture) -> NDArray[np.float32]:
    """A letter as a vector of norm 1: its picture at a fixed width, and its original width."""
    small = Image.fromarray(np.ascontiguousarray(piece)).resize((piece.shape[1], WIDTH), Image.Resampling.BILINEAR)
    vector = np.append(np.asarray(small, np.float32).ravel(), len(piece) / 4)
    return np.asarray(vector / max(1e-6, float(np.linalg.norm(vector))), np.float32)
