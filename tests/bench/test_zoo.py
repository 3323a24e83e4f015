"""The table of the zoo: what a file says of itself, and the page between its markers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bench import zoo
from export.build import build
from models.zoo.generate.teaching import info
from models.zoo.generate.token_rnn import TokenRNN, TokenRNNConfig
from tests.toys import toy_model

pytestmark = pytest.mark.long

LETTERS = ["<start>", *"abcdefgh "]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One that was exported, with scores; and a toy of which nobody counted anything."""
    folder = tmp_path_factory.mktemp("zoo")
    torch.manual_seed(3)
    model = TokenRNN(TokenRNNConfig(len(LETTERS), 12)).eval()
    options = {"kind": "text", "vocabulary": len(LETTERS), "tokens": LETTERS}
    about = info("writer", model.columns.limits(), 4, options) | {"licence": "none", "data": "none"}
    build(model, about | {"scores": {"bits | letter": 1.25}}, folder / "writer.onnx", max_batch=8, long_chunks=60)
    return {"writer": folder / "writer.onnx", "toy": toy_model(folder)}


def test_a_row_is_what_the_file_says(files: dict[str, Path]) -> None:
    found = zoo.facts(files["writer"], rounds=3)
    model = TokenRNN(TokenRNNConfig(len(LETTERS), 12))
    assert found["parameters"] == sum(weight.numel() for weight in model.parameters())
    assert found["state_bytes"] == sum(t.numel() * t.element_size() for t in model.initial_state(1).values())
    cells = dict(zip(zoo.COLUMNS, zoo.row(found), strict=True))
    assert cells["sees"] == "no end"
    assert cells["latency"] == "0 + 3"
    assert cells["scores"] == "bits | letter: 1.25"
    assert cells["a core carries"].endswith("steps/s")
    toy = zoo.facts(files["toy"], rounds=3)
    cells = dict(zip(zoo.COLUMNS, zoo.row(toy), strict=True))
    assert cells["parameters"].startswith("at most ")
    assert cells["sees"] == "not said"
    assert cells["a core carries"].endswith("streams")
    assert toy["streams"] == pytest.approx(toy["steps_per_second"] * toy["chunk_seconds"] / toy["chunk_steps"])


def test_the_page_is_written_between_its_markers(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "zoo.md"
    page.write_text(f"before\n{zoo.BEGIN}\nold\n{zoo.END}\nafter\n")
    given = [str(files["writer"]), str(files["toy"]), "--page", str(page), "--rounds", "2", "--json"]
    assert zoo.main(given) == 0
    text = page.read_text()
    assert text.startswith(f"before\n{zoo.BEGIN}\n| model | task ")
    assert text.endswith(f"|\n{zoo.END}\nafter\n")
    assert "old" not in text
    assert "bits \\| letter" in text
    printed = capsys.readouterr().out.splitlines()
    assert set(json.loads(next(line for line in printed if line.startswith("{")))) == {"writer", "toy"}
    assert zoo.main(given) == 0
    assert page.read_text().count(zoo.BEGIN) == 1
    page.write_text("nothing here\n")
    with pytest.raises(ValueError, match="has no"):
        zoo.main(given)


def test_two_digits() -> None:
    assert [zoo.rounded(x) for x in (123456.0, 99.6, 12.4, 3.14159, 0.0123)] == ["120,000", "100", "12", "3.1", "0.012"]
