"""Training through the command line, in seconds: both families, resume, a corpus of LibriSpeech's layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import models
from models.__main__ import main
from models.speech import data
from models.speech.acoustic import Acoustic, AcousticConfig, whole
from models.speech.ctc import CtcOptions
from models.training.budget import rate
from models.training.card import leave
from tests.models import corpora

# the trainer warns about what is meant so (one process, a loader without workers) and about itself
pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("family", ["wavenet", "lstm"])
def test_train_and_resume(family: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert main(["train", f"tiny-{family}", "--folder", str(folder)]) == 0
    rows = log(folder)
    assert [row["step"] for row in rows] == [4, 8, 12]
    assert rows[-1]["rate"] < rows[0]["rate"]
    model, info = models.load(folder / "best.pt")
    assert info["name"] == f"tiny-{family}"
    assert info["family"] == family
    assert info["tokens"][0] == "<blank>"
    assert info["hop"] == model.hop
    assert info["scores"]["dev"]["error"] == pytest.approx(min(row["error"] for row in rows), abs=1e-5)
    assert whole(model, torch.zeros(1, model.hop * 3, dtype=torch.int16)).shape == (1, 3, len(info["tokens"]))
    assert main(["train", f"tiny-{family}", "--folder", str(folder), "--resume", "--steps", "16"]) == 0
    assert [row["step"] for row in log(folder)] == [4, 8, 12, 16]


def test_the_card_of_a_model_that_writes_words(tmp_path: Path) -> None:
    tokens = ["<blank>", "one", "two", "<other>"]
    model = Acoustic(AcousticConfig("wavenet", 8000, 4, bands=8, front=8, channels=8, skip=8, dilations=(1,))).eval()
    info = {
        "name": "words", "family": "wavenet", "units": "words", "tokens": tokens, "lexicon": {}, "sample_rate": 8000,
        "hop": model.hop, "data": "noise", "licence": "none",
        "options": {"decoder": {"kind": "greedy", "boundary": "<other>"}},
    }  # fmt: skip
    with torch.no_grad():  # says "two" and nothing else
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([0.0, 0.0, 9.0, 0.0]))
    said = [data.Utterance("", "a", text, [], pcm=np.zeros(8000, np.int16)) for text in ("ONE TWO", "TWO", "TWO CATS")]
    (tmp_path / "log.jsonl").write_text('{"minutes": 1, "loss": 1, "per_dev": 1}\n')
    page = leave(tmp_path, model, info, {"dev": said, "cats": said[2:]}).read_text()
    assert "| dev | 33.3% | one speaker | 3 | 2 | 1 |" in page
    assert "| one two | two |" in page
    assert "| cats |" not in page


def test_librispeech_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMER_CACHE", str(tmp_path / "cache"))
    corpus = corpora.librispeech(tmp_path / "corpus")
    run = str(tmp_path / "run")
    arguments = ["train", "librispeech-tiny", "--corpus", str(corpus), "--folder", run, "--steps", "2"]
    assert main(arguments) == 0
    assert log(tmp_path / "run")[-1]["progress"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nonsense"], "there are: forecast-online, "),
        (["train", "librispeech"], "--corpus"),
        (["train", "librispeech", "--corpus", "/nowhere"], "no SPEAKER/CHAPTER"),
        (["train", "tiny-lstm", "--everybody"], "leave out --everybody"),
        (["train", "tiny-lstm", "--resume", "--folder", "/nowhere/run"], "nothing to resume"),
    ],
)
def test_mistakes_are_told(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "python -m models train digits" in capsys.readouterr().out


def test_schedule() -> None:
    options = CtcOptions(rate=1.0, warm=0.1)
    assert rate(0.0, options) == pytest.approx(0.05)
    assert rate(0.1, options) == pytest.approx(1.0)
    assert rate(0.55, options) == pytest.approx(0.505, abs=0.01)
    assert rate(1.0, options) == rate(2.0, options) == pytest.approx(0.01)
