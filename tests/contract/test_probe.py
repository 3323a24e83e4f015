"""What models are tried with."""

from __future__ import annotations

import numpy as np

from streamer.contract.probe import probe
from streamer.engine.catalogue import resolve
from streamer.engine.model import Model


def test_probes_of_sensors_are_mostly_there_and_have_a_clock() -> None:
    spec = Model.load(resolve("forecast-online")).manifest.input
    rows = probe(spec, 400, 1, np.random.default_rng(0))[:, 0, 0]
    assert 0.5 < (rows[:, 1] > 0.5).mean() < 0.9
    assert ((rows[:, 2:] > 0) & (rows[:, 2:] < 1)).mean() > 0.5
    assert np.ptp(rows[:, 0]) > 3
