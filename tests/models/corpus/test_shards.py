"""Shards on disk, and the run that makes them: killed, gone on with, refused."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from models.speech.corpus import english, shards
from models.speech.corpus.shards import RATE, CorpusRow
from tests.models.corpus.makers import HANGS, beeping, nothing, strings_beeping

HOURS = 5 / 3600


def row(text: str = "YES", source: str = "tone") -> CorpusRow:
    return CorpusRow(
        source, "somebody american x1.00", text, [["Y", "EH", "S"]], "made", "voice free; text mine", [[1, 9]]
    )


def tone(samples: int, step: float = 0.1) -> np.ndarray:
    return (8000 * np.sin(step * np.arange(samples))).astype(np.int16)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    sounds = [tone(4000), tone(5600, 0.3), tone(800, 0.7)]
    seconds = shards.write(tmp_path, "a", ((row(f"W{i}"), pcm) for i, pcm in enumerate(sounds)))
    read = shards.read(tmp_path, "a")
    assert seconds == 10400 / RATE
    assert [r.text for r in read] == ["W0", "W1", "W2"]
    for recording, pcm in reversed(list(zip(read, sounds, strict=True))):
        np.testing.assert_array_equal(recording.pcm, pcm)
    assert read[1].row.start == 4000
    assert read[1].flat == ["Y", "EH", "S"]
    assert read[1].segments == [[1, 9]]


def test_a_shard_that_fails_is_not_there(tmp_path: Path) -> None:
    def failing() -> Iterator[tuple[CorpusRow, np.ndarray]]:
        yield row(), tone(800)
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        shards.write(tmp_path, "a", failing())
    assert shards.names(tmp_path) == []
    shards.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_sweeping_takes_sound_without_a_table_and_leaves_shards(tmp_path: Path) -> None:
    shards.write(tmp_path, "whole", [(row(), tone(800))])
    (tmp_path / "half.flac").write_bytes(b"fLaC")
    (tmp_path / "b.17.tmp").write_bytes(b"")
    shards.sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole.flac", "whole.jsonl"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "english").glob("english-*"))}


def test_a_killed_run_goes_on_to_the_same_corpus(tmp_path: Path) -> None:
    whole, broken, sign = tmp_path / "whole", tmp_path / "broken", tmp_path / "half-done"
    english.build(whole, whole, HOURS, prepare=nothing, make=beeping)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.models.corpus.makers", str(broken)], env=os.environ | {HANGS: str(sign)}
    )
    try:
        deadline = time.monotonic() + 120
        while not sign.exists() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    assert sign.exists()
    assert shards.names(broken / "english") == ["english-00000"]  # the second one was half done
    english.build(broken, broken, HOURS, prepare=nothing, make=beeping)
    assert contents(broken) == contents(whole)
    assert not list((broken / "english").glob("*.tmp"))


def test_more_hours_keep_what_is_there(tmp_path: Path) -> None:
    said: list[float] = []
    english.build(tmp_path, tmp_path, HOURS, prepare=nothing, make=beeping, say=said.append)
    before = contents(tmp_path)
    english.build(tmp_path, tmp_path, 2 * HOURS, prepare=nothing, make=beeping, say=said.append)
    after = contents(tmp_path)
    assert before.items() < after.items()
    assert said[0] == 0
    assert said[-1] >= 2 * HOURS
    assert said == sorted(said)


def test_another_corpus_has_a_folder_of_its_own(tmp_path: Path) -> None:
    english.build(tmp_path, tmp_path, HOURS, corpus="digits", prepare=nothing, make=strings_beeping)
    assert shards.names(tmp_path / "digits")[0] == "digits-00000"
    assert not (tmp_path / "english").exists()


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    place = tmp_path / "english"
    with english.owned(place), pytest.raises(RuntimeError, match="another run"):
        english.build(tmp_path, tmp_path, HOURS, prepare=nothing, make=beeping)


def test_another_seed_is_refused(tmp_path: Path) -> None:
    english.build(tmp_path, tmp_path, HOURS, prepare=nothing, make=beeping)
    with pytest.raises(RuntimeError, match="delete it, or name another --folder"):
        english.build(tmp_path, tmp_path, HOURS, seed=2, prepare=nothing, make=beeping)


def test_the_disk_is_bounded(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="--gigabytes"):
        english.build(tmp_path, tmp_path, 1.0, gigabytes=1e-6, prepare=nothing, make=beeping)


def test_the_table_says_what_is_there(tmp_path: Path) -> None:
    shards.write(tmp_path, "a", [(row(), tone(RATE * 36))])
    shards.write(tmp_path, "b", [(row(), tone(RATE * 36)), (row(source="other"), tone(1600))])
    found = {entry["source"]: entry for entry in shards.summary(tmp_path)}
    assert found["tone"]["hours"] == pytest.approx(0.02)
    assert (found["tone"]["recordings"], found["tone"]["voices"], found["other"]["recordings"]) == (2, 1, 1)
    console = Console(record=True, width=120)
    english.show(tmp_path, console)
    text = console.export_text()
    assert "0.02" in text
    assert "free" in text
    assert "Texts: mine" in text
