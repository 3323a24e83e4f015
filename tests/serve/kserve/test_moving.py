"""Sequences move to another daemon: their clients, sent there, go on as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.daemon.test_moving import address, drained
from tests.serve.kserve.clients import WIRES, free_port
from tests.serve.kserve.conftest import serving
from tests.serve.kserve.test_infer import refused
from tests.serve.kserve.test_restart import GIVEN, SECRET, saved, step


@pytest.mark.long
def test_sequences_move_there_and_back(models: tuple[Path, ...], tmp_path: Path) -> None:
    settings = {"checkpoint_seconds": 0.05}
    with (
        serving(tmp_path / "a", models[0], kserve_grpc_port=free_port(), **settings) as one,
        serving(tmp_path / "b", models[0], kserve_grpc_port=free_port(), **settings) as other,
    ):
        here = {name: kind(one) for name, kind in WIRES.items()}
        for name, wire in here.items():
            step(wire, f"{name} plain", 0)
            step(wire, f"{name} named", 0, headers=dict(SECRET))
        assert drained(one, other)["streams"] == {"moved": 4, "left": {}}
        there = {name: kind(other) for name, kind in WIRES.items()}
        for name, wire in here.items():
            for _ in range(2):
                with refused(wire, "unavailable", f"goes on at {address(other)}"):
                    wire.infer("plant", GIVEN[4:8], sequence_id=f"{name} plain")
            with refused(wire, "unavailable", f"goes on at {address(other)}"):
                wire.infer("plant", GIVEN[:2], sequence_id=f"{name} fresh", sequence_start=True)
            step(there[name], f"{name} plain", 4)
            step(there[name], f"{name} named", 4, headers=dict(SECRET))
            with refused(there[name], "invalid", "must specify the START flag"):
                there[name].infer("plant", GIVEN[:2], sequence_id=f"{name} named")
        assert drained(other, one)["streams"] == {"moved": 4, "left": {}}
        for name, wire in here.items():
            step(wire, f"{name} plain", 8)
            step(wire, f"{name} named", 8, headers=dict(SECRET))
        for wire in (*here.values(), *there.values()):
            wire.close()


@pytest.mark.long
def test_what_may_be_lost_is_asked_for_also_there(models: tuple[Path, ...], tmp_path: Path) -> None:
    """A sequence of a daemon that was killed moves before its client has said where it stands."""
    with (
        serving(tmp_path / "a", models[0], checkpoint_seconds=0.05) as one,
        serving(tmp_path / "b", models[0], checkpoint_seconds=0.05) as other,
    ):
        wire = WIRES["http"](one)
        step(wire, "a", 0)
        saved(one)
        one.process.kill()
        one.process.wait(60)
        with serving(tmp_path / "a", models[0], checkpoint_seconds=0.05) as again:
            assert drained(again, other)["streams"]["moved"] == 1
            wire = WIRES["http"](other)
            with refused(wire, "conflict", "came back from a snapshot at row 4"):
                wire.infer("plant", GIVEN[4:8], sequence_id="a")
            step(wire, "a", 4, parameters={"sequence_position": 4})
            result = wire.infer("plant", GIVEN[8:], sequence_id="a")
            assert np.isfinite(result.as_numpy("y")).all()
