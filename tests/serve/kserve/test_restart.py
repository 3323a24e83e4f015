"""A daemon that goes down, comes back, dies, and comes back: what is told of sequences that it carried."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np

from tests.daemon.running import Running
from tests.serve.kserve.clients import WIRES, Wire, free_port
from tests.serve.kserve.conftest import serving
from tests.serve.kserve.plant import rows, truth
from tests.serve.kserve.test_infer import refused

SECRET = {"streamer-client": "a secret"}
GIVEN = rows(1, 16)


def step(wire: Wire, id: str, at: int, **options: Any) -> None:
    """The four rows at ``at`` of one sequence give what they give without any restart."""
    result = wire.infer("plant", GIVEN[at : at + 4], sequence_id=id, sequence_start=at == 0, **options)
    assert wire.position(result) == at + 4
    np.testing.assert_array_equal(result.as_numpy("y")[0], truth(GIVEN)[at : at + 4])


def saved(running: Running) -> None:
    """Wait until everything that was answered is on the disk."""
    rounds = running.metrics()["streamer_save_seconds_count"]
    while running.metrics()["streamer_save_seconds_count"] < rounds + 2:
        pass


def test_sequences_over_a_restart_and_a_crash(models: tuple[Path, ...], tmp_path: Path) -> None:
    port = free_port()

    def begins() -> Any:
        return serving(tmp_path, models[0], kserve_grpc_port=port, checkpoint_seconds=0.05)

    with begins() as running:
        for name, kind in WIRES.items():
            wire, twin = kind(running), kind(running)
            for id in ("plain", "ended", "anew"):
                step(wire, f"{name} {id}", 0)
            step(wire, f"{name} named", 0, headers=dict(SECRET))
            for each in (wire, twin):
                step(each, f"{name} twin", 0)
            saved(running)
            wire.infer("plant", GIVEN[:2], sequence_id=f"{name} ended", sequence_end=True)
        assert running.stop() == 0

    with begins() as running:
        for name, kind in WIRES.items():
            wire = kind(running)
            step(wire, f"{name} plain", 4)  # it was saved with all that was answered: nothing need be said
            step(wire, f"{name} named", 4, headers=dict(SECRET))
            step(wire, f"{name} anew", 0)
            for id in ("ended", "named"):
                with refused(wire, "invalid", "must specify the START flag"):
                    wire.infer("plant", GIVEN[:2], sequence_id=f"{name} {id}")
            with refused(wire, "invalid", f"several sequences '{name} twin' of your address"):
                wire.infer("plant", GIVEN[:2], sequence_id=f"{name} twin")
        saved(running)
        running.stop(signal.SIGKILL)

    with begins() as running:
        for name, kind in WIRES.items():
            wire, id = kind(running), f"{name} plain"
            for _ in range(2):  # it is said until the client shows that it knows
                with refused(wire, "conflict", "came back from a snapshot at row 8"):
                    wire.infer("plant", GIVEN[8:12], sequence_id=id)
            with refused(wire, "conflict", "is at row 8, not at 12: nothing was taken"):
                wire.infer("plant", GIVEN[12:], sequence_id=id, parameters={"sequence_position": 12})
            step(wire, id, 8, parameters={"sequence_position": 8})
            step(wire, id, 12)
            step(wire, f"{name} named", 8, headers=dict(SECRET), parameters={"sequence_position": 8})
