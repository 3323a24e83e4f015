"""Loaders on tiny corpora of the real layouts; the cache; words in phones."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from models.speech import data, synthetic
from models.training.recipe import dev_speakers
from tests.models import corpora


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = corpora.shared(tmp_path / "data")
    monkeypatch.setenv("STREAMER_DATA", str(root))
    monkeypatch.setenv("STREAMER_CACHE", str(tmp_path / "cache"))
    return root


def test_tokens() -> None:
    assert len(data.PHONES) == len(set(data.PHONES)) == 39
    assert data.TOKENS[0] == "<blank>"
    assert data.encode(["AA", "ZH"]) == [1, 39]


@pytest.mark.parametrize("phone", ["AH0_B", "AH1", "AH", "AH_E"])
def test_plain_phones(phone: str) -> None:
    assert data.plain(phone) == "AH"


def test_speechocean(folders: Path) -> None:
    first, second = data.speechocean("train", 16000)
    assert first.speaker == "0001"
    assert first.age == 6
    assert first.phones == [["W", "AH", "N"], ["T", "UW"]]
    assert first.flat == ["W", "AH", "N", "T", "UW"]
    assert first.is_digits
    assert first.pcm.dtype == np.int16
    assert len(first.pcm) == 24000
    assert 0.03 < first.pcm.std() / 32768 < 0.07
    assert data.speechocean("test", 16000)[0].phones == []
    assert len(data.speechocean("train", 8000)[1].pcm) == 12000
    assert data.by_speaker([first, second], ["0001"]) == ([second], [first])


def test_the_cache_needs_the_corpus_only_once(folders: Path) -> None:
    before = [u.pcm.sum() for u in data.speechocean("train", 16000)]
    shutil.rmtree(folders)
    assert [u.pcm.sum() for u in data.speechocean("train", 16000)] == before


@pytest.mark.long
def test_isolated_digits_and_noise() -> None:
    takes = data.fsdd()
    assert [u.text for u in takes[:3]] == ["ZERO", "ONE", "TWO"]
    assert {u.speaker for u in takes} == {"george", "jackson"}
    assert takes[1].phones == [["W", "AH", "N"]]
    assert len(data.kitchen(8000)) == 16000


def test_librispeech_layout(tmp_path: Path) -> None:
    found = list(data.librispeech(corpora.librispeech(tmp_path / "libri"), "train-clean-100"))
    assert [u.text for u in found] == ["THE CAT SAT", "A DOG", "HELLO WORLD", "GOOD DAY", "READ THE BOOK"]
    assert found[0].phones[1] == ["K", "AE", "T"]
    assert found[0].speaker == "100"
    assert len(found[0].pcm) == 16000
    with pytest.raises(FileNotFoundError, match=r"trans\.txt"):
        list(data.librispeech(tmp_path / "libri", "dev-clean"))


def test_pronunciations() -> None:
    assert data.pronounce("ZERO")[0] == ["Z", "IY", "R", "OW"]
    assert data.pronounce("XYZZYQ") == []
    assert ["R", "EH", "D"] in data.pronounce("READ")


def test_development_speakers_are_spread_over_the_ages() -> None:
    many = [data.Utterance("", f"{i:04d}", "", [], 8 if i % 2 else 30) for i in range(40)]
    held = dev_speakers(many, adults=3, children=2)
    assert len(set(held)) == 5
    assert sum(int(s) % 2 == 0 for s in held) == 3
    assert dev_speakers(many[:2]) == ["0000", "0001"]


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs espeak-ng")
def test_synthetic_speech() -> None:
    made = synthetic.digit_strings(3)
    assert all(1 <= len(u.text.split()) <= 10 and u.is_digits for u in made)
    assert all(len(u.pcm) > 8000 * 0.2 for u in made)
