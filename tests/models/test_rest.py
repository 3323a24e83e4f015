"""Examples that begin where nobody has spoken for a while."""

from __future__ import annotations

import numpy as np
import torch

from models.speech.acoustic import Acoustic, AcousticConfig
from models.speech.rest import LEVELS, PIECE, begun, rest

CONFIG = AcousticConfig(
    "lstm", 8000, 12, bands=16, front=12, channels=20, dilations=(1, 2), hidden=24, layers=1, dropout=0.3
)


def test_kept_states_are_those_of_a_stream_that_went_on() -> None:
    torch.manual_seed(0)
    model = Acoustic(CONFIG).train()
    kept = rest(model, 3 * PIECE, np.random.default_rng(0))
    assert model.training
    assert len(kept) == 3
    model.eval()
    zeros = torch.zeros(1, round(3 * PIECE * 8000) // model.hop * model.hop, dtype=torch.int16)
    with torch.no_grad():
        _, state = model(zeros, model.initial_state(1))
    for name, value in state.items():
        torch.testing.assert_close(kept[-1][name][:1], value, rtol=1e-4, atol=1e-4)
    assert not torch.equal(kept[0]["encoder.lstm.0.c"], kept[-1]["encoder.lstm.0.c"])


def test_rows_begin_in_kept_states_or_at_zero() -> None:
    model = Acoustic(CONFIG).eval()
    kept = rest(model, 2 * PIECE, np.random.default_rng(0))
    state, taken = begun(model.initial_state(200), kept, 0.25, np.random.default_rng(1))
    assert 20 < int(taken.sum()) < 90
    cells, known = state["encoder.lstm.0.c"].flatten(1), torch.cat([one["encoder.lstm.0.c"] for one in kept]).flatten(1)
    assert len(known) == 2 * len(LEVELS)
    assert not cells[~taken].any()
    for row in cells[taken]:
        assert (known == row).all(dim=1).any()
    assert len({tuple(row.tolist()) for row in cells[taken]}) == len(known)
