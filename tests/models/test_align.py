"""Forced alignment, against a synthesiser that knows when it spoke each phone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from models.speech import align, synthetic
from models.speech.data import Utterance

pytestmark = pytest.mark.skipif(shutil.which("flite") is None, reason="needs flite")


def test_phones_are_found_where_they_were_spoken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMER_CACHE", str(tmp_path))
    texts = ["she had your dark suit in greasy wash water all year", "three six two nine"]
    spoken = synthetic.read_by_flite("said", texts, 16000)
    found = align.aligned("said", spoken, workers=1)
    for utterance in spoken:
        times, truth = found[utterance.key], np.array(utterance.segments)
        assert times.shape == truth.shape
        assert (np.diff(times.ravel()) >= 0).all()
        assert np.median(np.abs(times - truth)) <= 5  # frames of 10 ms
    monkeypatch.setattr(align, "Aligner", None)  # the second time nothing is aligned
    again = align.aligned("said", spoken, workers=1)
    assert all(np.array_equal(again[key], found[key]) for key in found)


def test_what_can_not_be_aligned_has_no_segments() -> None:
    aligner = align.Aligner()
    short = np.random.default_rng(0).integers(-99, 99, 1600).astype(np.int16)
    assert aligner.segments(short, ["AA"] * 30).shape == (0, 2)
    pcm, phones, _ = synthetic.flite("hello", "slt", 16000)
    assert len(aligner.segments(pcm, phones)) == len(phones)  # and the next one is none the worse


def test_flite_says_what_it_spoke() -> None:
    pcm, phones, segments = synthetic.flite("zero", "kal16", 8000)
    assert phones == ["Z", "IH", "R", "OW"]
    assert len(segments) == 4
    assert 0.3 * 8000 < len(pcm) < 2 * 8000
    sounding = np.abs(pcm[segments[1][0] * 80 : segments[2][1] * 80].astype(int)).mean()
    assert sounding > 5 * np.abs(pcm[: segments[0][0] * 40].astype(int)).mean()
    assert Utterance("", "", "", [phones], segments=segments).flat == phones
