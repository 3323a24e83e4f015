"""The zoo's names: each is of something, and a checkpoint of anything else is refused aloud."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.training import checkpoint
from models.zoo import ARCHITECTURES, RECIPES, find


@pytest.mark.parametrize("where", [*ARCHITECTURES.values(), *RECIPES.values()])
def test_names_are_of_something(where: str) -> None:
    assert all(callable(found) for found in find(where))


def test_a_checkpoint_of_what_nobody_knows_is_no_end_of_the_training(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="Linear: not in KINDS"):
        checkpoint.save(tmp_path / "best.pt", torch.nn.Linear(1, 1), {})
