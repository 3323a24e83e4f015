"""``tokens.txt`` as different toolkits write it."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.adopt.recogniser.tokens import Tokens, read_tokens
from export.adopt.report import AdoptionError
from streamer.tasks.transcribe import pieces


def listed(folder: Path, *texts: str) -> Path:
    path = folder / "tokens.txt"
    path.write_text("".join(f"{text} {number}\n" for number, text in enumerate(texts)), "utf-8")
    return path


def test_pieces_of_words(tmp_path: Path) -> None:
    tokens = read_tokens(listed(tmp_path, "<blk>", "<sos/eos>", "<unk>", "S", "▁THE"), 5)
    assert tokens == Tokens(("<blk>", "<sos/eos>", "<unk>", "S", "▁THE"), 0, "pieces", 2)


def test_nemo_has_its_blank_behind_the_others(tmp_path: Path) -> None:
    assert read_tokens(listed(tmp_path, "<unk>", "▁the", "<blk>"), 3, last=True).blank == 2
    # named or not
    left_out = read_tokens(listed(tmp_path, "<unk>", "▁the"), 3, last=True)
    assert (left_out.blank, left_out.texts) == (2, ("<unk>", "▁the", "<blk>"))


def test_characters_with_a_space(tmp_path: Path) -> None:
    """Of a token that is a space nothing is left but what separates it from its number."""
    path = tmp_path / "tokens.txt"
    path.write_text("é 0\n 1\nß 2\n<blk> 3\n", "utf-8")
    assert read_tokens(path, 4) == Tokens(("é", " ", "ß", "<blk>"), 3, "characters", None)


def test_characters_without_spaces(tmp_path: Path) -> None:
    assert read_tokens(listed(tmp_path, "<blank>", "<unk>", "你", "好"), 4).units == "pieces"


def test_bytes_that_fall_back(tmp_path: Path) -> None:
    tokens = read_tokens(listed(tmp_path, "<blk>", "<0xc3>", "<0xAF>", "▁na"), 4)
    assert tokens.texts == ("<blk>", "<0xC3>", "<0xAF>", "▁na")


def test_bytes_as_letters(tmp_path: Path) -> None:
    """Byte-level BPE writes E4 BD A0, which is one character, as three letters of its own."""
    tokens = read_tokens(listed(tmp_path, "<blk>", "<unk>", "▁ƋţŅ", "▁HELLO", "ƌĸī"), 5)
    assert tokens.texts[2:] == ("▁<0xE4><0xBD><0xA0>", "▁HELLO", "<0xE5><0x95><0x8A>")
    assert pieces.spelt(tokens.texts[2:3]) + pieces.spelt(tokens.texts[4:]) == "你啊"


def test_every_byte_has_its_letter(tmp_path: Path) -> None:
    """As in fairseq's byte_utils: ASCII is itself, the others are letters that no normalisation takes apart."""
    import unicodedata

    from export.adopt.recogniser.tokens import _BYTES

    assert sorted(_BYTES.values()) == [byte for byte in range(256) if not 0x20 <= byte < 0x7F]
    assert all(unicodedata.normalize("NFKC", letter) == letter for letter in _BYTES)
    assert (_BYTES["Ġ"], _BYTES["ƀ"], _BYTES[chr(0x1A6)]) == (127, 217, 255)


def test_a_token_that_is_there_twice_is_told_apart(tmp_path: Path) -> None:
    assert read_tokens(listed(tmp_path, "<blk>", "▁A", "▁A"), 3).texts == ("<blk>", "▁A", "<2>")


@pytest.mark.parametrize(
    ("text", "size", "message"),
    [
        ("<blk> 0\nA\n", 2, r"line 2: 'A' is not a token with its number"),
        ("<blk> 0\nA 0\n", 2, r"line 2: 0 is '<blk>' already"),
        ("<blk> 0\nA 1\n", 5, r"2 tokens, up to number 1, the model scores 5"),
        ("A 0\nB 1\n", 2, "no blank"),
    ],
)
def test_a_list_that_does_not_fit(tmp_path: Path, text: str, size: int, message: str) -> None:
    path = tmp_path / "tokens.txt"
    path.write_text(text, "utf-8")
    with pytest.raises(AdoptionError, match=message):
        read_tokens(path, size)


def test_a_list_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    path.write_bytes(b"\xff\xfe 0\n")
    with pytest.raises(AdoptionError, match="not UTF-8"):
        read_tokens(path, 1)
    with pytest.raises(AdoptionError, match="can't read"):
        read_tokens(tmp_path / "nosuch.txt", 1)
