"""Lines of an adventure game and their sounds, on an archive made here."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from models.speech.corpus import games
from models.speech.corpus.games import Archive, Line, acted, lines, segments, trimmed

HEADER = bytes(games.HEADER)


def string(text: str, align: int = 2, place: int = 0) -> bytes:
    """A string of the game that begins at ``place``; the next one begins at a multiple of ``align``."""
    data = bytes([len(text)]) + text.encode("cp437")
    return data + bytes(-(place + len(data)) % align) if text else data


def numbered(text: str, number: int, place: int) -> bytes:
    return struct.pack(">hH", 0, number) + string(text, 4, place + 4)


def conversation(his: list[tuple[int, str]], theirs: list[tuple[int, str]], again: tuple[str, str]) -> bytes:
    own = 32 + 96
    data = bytearray(own)
    for number, text in his:
        data += numbered(text, number, len(data))
    other = len(data)
    for number, text in theirs:
        data += numbered(text, number, len(data))
    second = len(data)
    for text in again:
        data += string(text, 2, len(data))
    struct.pack_into(">5h", data, 0, 1, 0, 7, len(his), len(theirs))
    struct.pack_into(">3H", data, 22, other, 0, second)
    return HEADER + bytes(data)


def scene(texts: list[str]) -> bytes:
    data = bytearray(struct.pack(">hhhHHH", 0, -len(texts), 0, 0, 12, 0))
    for text in ["*FR", *texts]:
        data += string(text, 2, len(data))
    return HEADER + bytes(data)


def archive(path: Path, files: dict[str, bytes]) -> Path:
    table, contents, start = b"", b"", 15 + 21 * len(files)
    for name, data in files.items():
        table += struct.pack(">12sBII", name.encode(), 1, start + len(contents), len(data))
        contents += data
    path.write_bytes(b"QTBLCEM10\0\0\0\0" + struct.pack(">H", len(files)) + table + contents)
    return path


def sound(seconds: float) -> bytes:
    """A tone in MP3 with silence around it."""
    rate = 11025
    tone = 0.5 * np.sin(np.arange(int(seconds * rate)) * 0.3)
    wave = np.concatenate([np.zeros(rate // 2), tone, np.zeros(rate)])
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format="MP3")
    return file.getvalue()


def test_every_segment_of_a_line_has_a_sound_of_its_own() -> None:
    assert list(segments("*XY00(128,112)*FLWhat is it?*00You again!*15")) == [(3, "What is it?"), (4, "You again!")]
    assert list(segments("plain")) == [(1, "plain")]
    assert list(segments("*FR*02")) == []


def test_conversations_scenes_and_remarks_name_their_sounds(tmp_path: Path) -> None:
    files = {
        "CHEF2.DOG": conversation(
            [(0x1E, "Some milk?*03And cookies?"), (6, "Hello.")], [(0x1E, "No!*00Beat it!"), (6, "Oh")], ("Yes?", "Me")
        ),
        "C1A.CUT": scene(["", "*FLYeah Joe?", "#credits", "Neat*02One more"]),
        "QUEEN2.JAS": b"Cute*02\r\nIt is closed*24Or is it?*02",
    }
    found = lines(Archive(archive(tmp_path / "queen.1c", files)))
    assert {name: line for name, line in found.items() if not name.startswith("07SSSS")} == {
        "07001EJ1.SB": Line("JOE", "Some milk?"),
        "07001EJ2.SB": Line("JOE", "And cookies?"),
        "070006J1.SB": Line("JOE", "Hello."),
        "07001EP1.SB": Line("CHEF", "No!"),
        "07001EP2.SB": Line("CHEF", "Beat it!"),
        "070006P1.SB": Line("CHEF", "Oh"),
        "07XXXXP1.SB": Line("CHEF", "Yes?"),
        "07XXXXJ1.SB": Line("JOE", "Me"),
        "C1A__022.SB": Line("scene C1A", "Yeah Joe?"),
        "C1A__041.SB": Line("scene C1A", "Neat"),
        "C1A__042.SB": Line("scene C1A", "One more"),
        "JOE00411.SB": Line("JOE", "Cute"),
        "JOE00421.SB": Line("JOE", "It is closed"),
        "JOE00422.SB": Line("JOE", "Or is it?"),
    }


def test_only_what_is_understood_and_of_the_expected_length_is_given(tmp_path: Path) -> None:
    remarks = ["It is 6 inches long", "(sigh) I am so tired", "This one is far too short", "Nobody has spoken this"]
    files = {
        "QUEEN2.JAS": "\r\n".join(remarks).encode(),
        "JOE00411.SB": sound(1.4),
        "JOE00421.SB": sound(1.4),
        "JOE00431.SB": sound(0.2),
        "JOE00441.SB": b"no sound at all",
    }
    ((speaker, text, pcm),) = acted(archive(tmp_path / "queen.1c", files))
    assert (speaker, text) == ("JOE", "It is six inches long")
    assert 1.4 < len(pcm) / games.RATE < 1.9  # silence beyond .15 s is gone
    assert np.abs(pcm).max() > 8000


def test_what_is_silent_has_nothing_left() -> None:
    assert len(trimmed(np.zeros(16000, np.int16))) == 0


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "queen.1c").write_bytes(b"something else")
    with pytest.raises(ValueError, match="QTBL"):
        Archive(tmp_path / "queen.1c")
