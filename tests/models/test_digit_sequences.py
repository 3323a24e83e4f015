"""Recognisers of every family: any split, sizes, and the recipe to a table and files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from export.build import build
from models.speech.mixture import UtteranceSource
from models.training import checkpoint
from models.training.budget import Budget
from models.zoo.forecast.sequence import FAMILIES
from models.zoo.speech import digit_sequences
from models.zoo.speech.digit_sequences import PARAMETERS, seen, size, sized
from models.zoo.speech.digit_strings import TOKENS, DigitPool, joined
from models.zoo.speech.listener import Listener, ListenerConfig, top
from streamer.engine.model import Model
from tests.models.laws import check_company, check_state, settle
from tests.models.test_transducer import noise, tones

pytestmark = pytest.mark.long

SMALL = ListenerConfig(len(TOKENS), bands=12, channels=8, dilations=(1,), hidden=8, family="linear")


@pytest.mark.parametrize("family", FAMILIES)
def test_state_and_company(family: str) -> None:
    torch.manual_seed(1)
    model = settle(Listener(replace(SMALL, family=family)))
    check_state(model, noise(3, 4, model.hop))
    check_company(model, noise(2, 9, model.hop), lambda row: torch.full_like(row, -32768))


def test_bodies_are_about_as_large() -> None:
    models = {family: sized(family) for family in FAMILIES}
    assert all(0.94 * PARAMETERS < size(model) <= PARAMETERS for model in models.values())
    assert seen(models["tcn"]) == "5.1 s"  # 7 layers of 2 taps, 40 ms a step
    assert seen(models["gru"]) == "no end"
    with pytest.raises(ValueError, match="leave out `ahead`"):
        top(replace(SMALL, family="gru", ahead=2))


@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_the_recipe_and_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digit_sequences, "FAMILIES", ("transformer", "mingru"))
    sources = [UtteranceSource("tones", [u for name in "ab" for u in tones(name, ord(name))], lambda p: 1.0, (1, 2))]
    held = joined(tones("d", 9), length=3)
    pool = DigitPool(sources, np.zeros(0, np.int16), count=2, seconds=3.0)
    budget = Budget(steps=3, rate=4e-3, average=0.9)
    digit_sequences.learn(pool, held, {"tones": held}, tmp_path, budget, SMALL, parameters=6000)
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in lines] == ["body", "---", "none", "transformer", "mingru"]
    assert "tones (24 words)" in lines[0]
    folder = tmp_path / "digits-transformer"
    assert (folder / "scores.json").exists()
    model, info = checkpoint.load(folder / "best.pt")
    assert model.config.family == "transformer"
    assert build(model, info, tmp_path / "digits.onnx", max_batch=4, long_chunks=60).ok
    assert Model.load(tmp_path / "digits.onnx").manifest.task == "transcribe"
