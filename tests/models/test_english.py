"""The recipe ``english``: what it takes of a corpus, and what it says without one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.__main__ import main
from models.shipped.english import FAMILIES, HELD_OUT, SHARES, UNHEARD, corpus_reader, unheard
from models.speech.acoustic import Acoustic, parameters
from models.speech.corpus import shards
from models.speech.corpus.shards import CorpusRow
from models.training import card

pytestmark = pytest.mark.long


def shard(folder: Path, name: str, sources: str) -> None:
    pcm = np.zeros(1600, np.int16)
    made = (
        (CorpusRow(source, f"{name} {i}", "A", [["AH"]], "made", ""), pcm) for i, source in enumerate(sources.split())
    )
    shards.write(folder, name, made)


def test_a_reader_follows_the_corpus_and_leaves_the_held_out_shard(tmp_path: Path) -> None:
    read = corpus_reader(tmp_path, "kokoro")
    assert read() == []
    shard(tmp_path, HELD_OUT, "kokoro")
    shard(tmp_path, "english-00001", "kokoro hibari")
    assert [recording.speaker for recording in read()] == ["english-00001 0"]
    shard(tmp_path, "english-00002", "hibari kokoro kokoro")
    assert len(read()) == 3
    assert read()[0].pcm.shape == (1600,)


def test_actors_that_are_left_out_are_for_development_alone(tmp_path: Path) -> None:
    assert unheard(tmp_path) == []
    pcm = np.zeros(3 * shards.RATE, np.int16)
    speakers = [*UNHEARD, "queen JOE", UNHEARD[0]]
    shards.write(tmp_path, "queen", ((CorpusRow("queen", who, "A", [["AH"]], "queen", ""), pcm) for who in speakers))
    assert [recording.speaker for recording in corpus_reader(tmp_path, "queen")()] == ["queen JOE"]
    assert {recording.speaker for recording in unheard(tmp_path, 0.1)} <= set(UNHEARD)
    assert len(unheard(tmp_path, 0.1)) == 2  # every third
    assert unheard(tmp_path, 4.0) == []


def test_shares_are_shares() -> None:
    for end in range(2):
        assert sum(share[end] for share in SHARES.values()) == pytest.approx(1.0)


def test_without_a_corpus_it_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STREAMER_CORPUS", str(tmp_path))
    assert main(["train", "english", "--folder", str(tmp_path / "run")]) == 2
    assert "python -m models corpus english" in capsys.readouterr().err


def test_the_table_of_an_empty_corpus_is_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["corpus", "english", "--table", "--folder", str(tmp_path)]) == 0
    assert "hours" in capsys.readouterr().out


def test_a_folder_of_another_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "english").mkdir()
    (tmp_path / "english" / "corpus.json").write_text('{"version": 0}')
    assert main(["corpus", "english", "--hours", "1", "--folder", str(tmp_path)]) == 2
    assert "delete it" in capsys.readouterr().err


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_of_a_size_that_ships_and_hears_far_enough_back(family: str) -> None:
    model = Acoustic(FAMILIES[family])
    assert family in card.FAMILIES
    assert 4e6 < parameters(model) < 22e6  # a byte each, beside 6 MB of words
    assert model.hop == 640
    assert model.context is None or model.context > 200  # 2 s in frames of 10 ms
