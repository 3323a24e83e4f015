"""A new version has to keep the laws before anybody is on it."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.contract.lawbreakers import BREAKERS, honest, write
from tests.engine.support import Events, running
from tests.toys import samples


def test_a_version_that_breaks_a_law_is_not_taken(tmp_path: Path) -> None:
    served = honest(tmp_path / "served.onnx")
    before = served.read_bytes()
    broken = [write(tmp_path / f"{kind}.onnx", BREAKERS[kind][0]) for kind in ("batch mean", "memory not read")]
    with running(served, folder=tmp_path / "state") as registry:
        (name,) = (model["name"] for model in registry.models())
        digest = registry.engine(name).model.digest
        for path in broken:
            shutil.copy(path, served)
            said = registry.reload()[name]
            assert said["outcome"] == "failed"
            assert "does not keep its promises" in said["error"], path
            assert registry.engine(name).model.digest == digest
        served.write_bytes(before)
        assert registry.reload()[name]["outcome"] == "unchanged"
        session = registry.open(model=name, sink=Events())
        session.feed(samples(1, 640).tobytes())
