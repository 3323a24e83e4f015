"""Text for the language model out of packages: R's database, WordNet's files, plain ones."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from models.speech.corpus import prose


def stored(*lines: str) -> bytes:
    """A character vector as R serialises it, packed as an object of a lazy-load database."""
    raw = b"X\n" + b"".join(b"\x00\x04\x00\x09" + struct.pack(">i", len(line)) + line.encode() for line in lines)
    return struct.pack(">I", len(raw)) + zlib.compress(raw)


def test_novels_come_paragraph_by_paragraph(tmp_path: Path) -> None:
    database = tmp_path / "Rdata.rdb"
    database.write_bytes(stored("ONE", "", "She was", "happy.", "", "He was not.") + stored("TWO", "", "x" * 300))
    assert list(prose.novels(database)) == ["ONE", "She was\nhappy.", "He was not.", "TWO", "x" * 300]
    assert list(prose.novels(tmp_path / "none.rdb")) == []


def test_glosses_without_what_stands_in_brackets(tmp_path: Path) -> None:
    (tmp_path / "data.noun").write_text(
        "  1 This software and database | is provided\n"
        '00001740 03 n 01 dog 0 001 @ 1 n 0000 | a member (of the genus Canis); a pet; "the dog barked all night"  \n'
    )
    found = [part.strip() for part in prose.glosses(tmp_path) if part.strip()]
    assert sorted(found) == ["a member", "a pet", "the dog barked all night"]


def test_files_of_text(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("Call me\nIshmael.\n\n\nSome years ago.\n")
    (tmp_path / "a.txt").write_text("Gentlemen:")
    (tmp_path / "a.json").write_text("{}")
    assert list(prose.texts(tmp_path, "*.txt")) == ["Gentlemen:", "Call me\nIshmael.", "Some years ago.\n"]
