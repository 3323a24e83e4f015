"""Hotwords at the door: how many, how long, how many lists; and what streams that have them say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from streamer.engine.catalogue import find_models
from tests.cli.command import ROOT
from tests.engine.support import Events, count, refused, running

DIGITS = next((path for path in find_models() if path.stem == "digits"), None)
pytestmark = pytest.mark.skipif(DIGITS is None, reason="models/pretrained/digits.onnx")


def test_bounds_are_settings_and_refuse_by_name(tmp_path: Path) -> None:
    assert DIGITS is not None
    bounds = {"max_hotwords": 3, "max_hotword_letters": 10, "max_hotword_sets": 2}
    with running(DIGITS, folder=tmp_path, **bounds) as registry:

        def wish(*words: str) -> dict[str, object]:
            return {"options": {"hotwords": list(words)}}

        assert "max_hotwords" in refused(registry, "options", **wish("one", "two", "three", "four")).message
        assert "max_hotword_letters" in refused(registry, "options", **wish("seven seven")).message
        assert "'Kubernetes' is not in" in refused(registry, "options", **wish("Kubernetes")).message
        refused(registry, "options", options={"hotwords": "seven"})
        opened = [
            registry.open(model=None, sample_rate=8000, sink=Events(), options=wish(*words)["options"])  # type: ignore[arg-type]
            for words in (("one",), ("one",), ("two", "three"), ())
        ]
        assert count(registry, "hotword_sets", model="digits") == 2
        assert count(registry, "limit", name="max_hotword_sets") == 2
        full = refused(registry, "capacity", **wish("four"))
        assert "max_hotword_sets" in full.message
        assert full.retry_after
        registry.release(opened[2])
        registry.open(model=None, sample_rate=8000, sink=Events(), options={"hotwords": ["four"]})
        assert count(registry, "hotword_sets", model="digits") == 2


def test_a_stream_with_hotwords_beside_one_without(tmp_path: Path) -> None:
    assert DIGITS is not None
    sound, rate = sf.read(ROOT / "samples" / "digits.flac", dtype="int16")
    said = (ROOT / "samples" / "digits.txt").read_text().split()
    with running(DIGITS, folder=tmp_path) as registry:
        sinks = [Events() for _ in range(4)]
        for i, sink in enumerate(sinks):
            options = {"partials": False} | ({"hotwords": ["Seven", "nine nine"]} if i % 2 else {})
            session = registry.open(model=None, sample_rate=rate, sink=sink, options=options)
            session.feed(np.ascontiguousarray(sound).tobytes())
            session.end()
        texts = []
        for sink in sinks:
            sink.wait("end")
            texts.append(" ".join(event["text"] for event in sink.of("final")).split())
    assert texts[0] == texts[2] == said
    assert texts[1] == texts[3] == said


def test_a_stream_with_hotwords_sleeps_and_wakes(tmp_path: Path) -> None:
    assert DIGITS is not None
    sound, rate = sf.read(ROOT / "samples" / "digits.flac", dtype="int16")
    half = len(sound) // 2
    options = {"partials": False, "hotwords": ["seven", "nine"], "hotword_bonus": 2.0}
    with running(DIGITS, folder=tmp_path, store=True) as registry:
        awake, first, second = Events(), Events(), Events()
        session = registry.open(model=None, sample_rate=rate, sink=awake, options=options)
        session.feed(np.ascontiguousarray(sound).tobytes())
        session.end()
        awake.wait("end")
        session = registry.open(model=None, sample_rate=rate, sink=first, options=options, key="k")
        session.feed(np.ascontiguousarray(sound[:half]).tobytes())
        first.wait("final")
        registry.detach(session)
        assert registry.keeper.evict(session, "grace")
        session = registry.attach("k", second, after_seq=None)
        session.feed(np.ascontiguousarray(sound[session.received :]).tobytes())
        session.end()
        second.wait("end")
    told = [event["text"] for event in [*first.of("final"), *second.of("final")]]
    assert told == [event["text"] for event in awake.of("final")]
