# ruff: noqa: RUF001
"""Voices: blends of Kokoro's, and the networks themselves where they have been downloaded."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from models.speech.corpus.g2p import arpabet, closest, fitted, timed
from models.speech.corpus.kokoro import Graph, Kokoro, VoiceBlend, blend, cut, session
from models.speech.corpus.packages import Packages, corpus_folder
from models.speech.corpus.vocoder import DURATIONS, FEATURES, SOURCE, Vocoder
from models.speech.corpus.voices import (
    LEARNERS,
    HibariVoices,
    KokoroVoices,
    draw_speaker,
    draw_vocal_tract,
    scale_frequencies,
    trimmed,
)

NAMES = ["af_heart", "af_sky", "am_adam", "bf_emma", "bm_lewis", "zf_xiaoyi", "ff_siwis"]
packages = Packages(corpus_folder())
voices_are_here = pytest.mark.skipif(
    not packages.there, reason="no voices in $STREAMER_CORPUS: python -m models corpus"
)


def test_a_blend_is_a_weighted_mean_of_both_halves() -> None:
    rng = np.random.default_rng(1)
    voices = {name: rng.standard_normal((510, 256)).astype(np.float32) for name in ("a", "b")}
    style = blend(voices, VoiceBlend({"a": 0.25, "b": 0.75}, {"b": 1.0}))
    np.testing.assert_allclose(style[:, :128], 0.25 * voices["a"][:, :128] + 0.75 * voices["b"][:, :128], rtol=1e-5)
    np.testing.assert_array_equal(style[:, 128:], voices["b"][:, 128:])


def test_speakers_are_ever_new_and_mostly_native() -> None:
    rng = random.Random(1)
    speakers = [draw_speaker(NAMES, rng) for _ in range(600)]
    assert all(abs(sum(shares.values()) - 1) < 1e-9 for s in speakers for shares in (s.timbre, s.prosody))
    assert len({s.name for s in speakers}) > 450
    foreign = sum(any(name[0] in "zf" for name in s.timbre) for s in speakers) / len(speakers)
    assert 0.2 < foreign < 0.4
    assert draw_speaker(NAMES, random.Random(3)) == draw_speaker(NAMES, random.Random(3))


def test_learners_are_mostly_foreign_and_young() -> None:
    rng = random.Random(1)
    speakers = [draw_speaker(NAMES, rng, LEARNERS) for _ in range(600)]
    assert 0.6 < sum(any(name[0] in "zf" for name in s.timbre) for s in speakers) / len(speakers) < 0.8
    tracts = [draw_vocal_tract(rng, LEARNERS) for _ in range(600)]
    assert 0.58 < sum(tract >= 1.15 for tract in tracts) / len(tracts) < 0.72


def test_a_shorter_throat_moves_every_frequency_up() -> None:
    wave = np.sin(2 * np.pi * 440 * np.arange(24000) / 24000).astype(np.float32)
    out = scale_frequencies(wave, 1.25, 24000)
    assert abs(len(out) - 16000 / 1.25) <= 2
    assert abs(np.abs(np.fft.rfft(out)).argmax() * 16000 / len(out) - 550) < 3


def test_trimming_says_what_it_took() -> None:
    wave = np.zeros(16000, np.float32)
    wave[8000:9000] = 0.5
    out, cut = trimmed(wave)
    assert cut == (8000 - 1280) / 16000
    assert len(out) == 999 + 2 * 1280
    assert len(trimmed(wave[:0])[0]) == 0


def test_phones_of_kokoros_alphabet() -> None:
    assert arpabet("ˈɛvəɹi") == ["EH", "V", "ER", "IY"]
    assert arpabet("θˈɜːti") == ["TH", "ER", "T", "IY"]
    assert arpabet("lˈIɪə,") == ["L", "AY", "IH", "R"]
    assert closest(["AH", "B"], [["AE", "B"], ["AH", "B", "S"], ["IY", "Z"]]) == ["AE", "B"]
    assert closest(["Z"], []) == ["Z"]


def test_a_mark_of_stress_belongs_to_the_phone_behind_it() -> None:
    # e v ˈ ə ɹ: the last two are one phone
    assert timed("ɛvˈəɹ", [0.0, 0.1, 0.2, 0.3, 0.4], 0.5) == [(0.0, 0.1), (0.1, 0.2), (0.2, 0.5)]
    assert timed("", [], 1.0) == []


def test_times_fit_labels_of_another_length() -> None:
    assert fitted(2, [(0.0, 0.3), (0.3, 0.4)]) == [(0.0, 0.3), (0.3, 0.4)]
    spans = fitted(4, [(0.0, 0.3), (0.3, 0.4)])
    np.testing.assert_allclose(spans, [(0.0, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.4)])


def test_processes_that_begin_together_do_not_take_each_others_front(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = (FEATURES, SOURCE, DURATIONS)
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["tokens"], [name]) for name in names],
        "whole",
        [onnx.helper.make_tensor_value_info("tokens", kind, None)],
        [onnx.helper.make_tensor_value_info(name, kind, None) for name in names],
    )
    model, front, save = tmp_path / "model.onnx", tmp_path / "front.onnx", onnx.save
    onnx.save(onnx.helper.make_model(graph), model)

    def overtaken(*arguments: Any) -> None:
        save(*arguments)
        monkeypatch.setattr(onnx, "save", save)
        cut(model, front)  # another process comes first

    monkeypatch.setattr(onnx, "save", overtaken)
    cut(model, front)
    assert [node.output[0] for node in onnx.load(front).graph.node] == list(names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["front.onnx", "model.onnx"]


@voices_are_here
@pytest.mark.long
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_the_vocoder_says_what_the_whole_graph_says(kind: torch.dtype) -> None:
    kokoro = Kokoro(packages.model, packages.vocabulary, packages.voices)
    style = kokoro.voices["af_heart"]
    phonemes = "ðə flˈIt sˈWndz ɡɹˈAt."
    kokoro.vocoder = Vocoder(Graph(onnx.load(packages.model)), kind)
    wave, bounds = kokoro(phonemes, style)
    ids = [kokoro.vocabulary[symbol] for symbol in phonemes]
    given = {"tokens": np.array([[0, *ids, 0]]), "style": style[len(ids) - 1][None], "speed": np.ones(1, np.float32)}
    whole = session(packages.model).run(None, given)[0].ravel()
    assert len(whole) == len(wave)
    ours, theirs = (20 * np.log10(np.abs(spectrum(w)) + 1e-2) for w in (wave, whole))
    # theirs is of int8 activations, so a few decibels apart is the same sound
    assert np.abs(ours - theirs)[theirs > -10].mean() < 4.0
    assert len(bounds) == len(ids) + 1
    assert np.all(np.diff(bounds) > 0)
    assert bounds[-1] < len(wave) / 24000


@voices_are_here
@pytest.mark.long
def test_kokoro_tells_when_each_phone_is_spoken() -> None:
    spoken = KokoroVoices(packages).speak("^U ^S flights, by nine.", random.Random(2))
    assert [len(word) for word in spoken.times] == [2, 2, 5, 2, 3]
    edges = [edge for word in spoken.times for span in word for edge in span]
    assert edges == sorted(edges)
    assert edges[-2] < len(spoken.wave) / 16000  # the last phone lasts into the silence that is cut off


def spectrum(wave: np.ndarray) -> np.ndarray:
    frames = np.lib.stride_tricks.sliding_window_view(wave, 512)[::128] * np.hanning(512)
    return np.fft.rfft(frames, axis=1)


@voices_are_here
@pytest.mark.long
def test_hibari_repeats_itself_from_its_generator() -> None:
    voices = HibariVoices(packages)
    first, second, other = (voices.speak("Good evening.", random.Random(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.wave, second.wave)
    assert first.voice != other.voice
    assert 0.3 < len(other.wave) / 16000 < 4
