"""Telephone sound, by the tables of the recommendation."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from streamer.serve.openai.g711 import alaw_to_pcm, ulaw_to_pcm


def test_a_few_of_the_recommendations_values() -> None:
    assert np.frombuffer(ulaw_to_pcm(b"\x00\x7f\x80\xff\x8f\x0f"), "<i2").tolist() == [
        -32124,
        0,
        32124,
        0,
        16764,
        -16764,
    ]
    assert np.frombuffer(alaw_to_pcm(b"\x55\xd5\x2a\xaa"), "<i2").tolist() == [-8, 8, -32256, 32256]


def test_every_code_as_the_standard_library_has_it() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        audioop = pytest.importorskip("audioop")  # gone with Python 3.13
    codes = bytes(range(256))
    assert ulaw_to_pcm(codes) == audioop.ulaw2lin(codes, 2)
    assert alaw_to_pcm(codes) == audioop.alaw2lin(codes, 2)
