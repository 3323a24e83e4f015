"""Copies of model files in the state directory."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from streamer.streams.kept_models import KeptModels


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("how", ["written over in its place", "another file in its place", "deleted"])
def test_a_file_is_found_again_whatever_becomes_of_it(tmp_path: Path, how: str) -> None:
    path, kept = tmp_path / "plant.onnx", KeptModels(tmp_path / "models", most=2, room=0)
    path.write_bytes(b"old")
    kept.keep(path, digest(b"old"))
    if how == "written over in its place":  # as cp does
        path.write_bytes(b"new")
    elif how == "deleted":
        path.unlink()
    else:
        (tmp_path / "new").write_bytes(b"new")
        (tmp_path / "new").replace(path)
    found = kept.find(digest(b"old"))
    assert found is not None
    assert found.read_bytes() == b"old"


def test_a_copy_that_somebody_changed_is_none(tmp_path: Path) -> None:
    path, kept = tmp_path / "plant.onnx", KeptModels(tmp_path / "models", most=2, room=0)
    path.write_bytes(b"old")
    kept.keep(path, digest(b"old"))
    (copy,) = (tmp_path / "models").iterdir()
    copy.write_bytes(b"odd")
    assert kept.find(digest(b"old")) is None
    assert not list((tmp_path / "models").iterdir())


def test_where_there_is_no_room_there_is_no_copy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, kept = tmp_path / "plant.onnx", KeptModels(tmp_path / "models", most=2, room=1 << 60)
    path.write_bytes(b"old")
    kept.keep(path, digest(b"old"))
    assert kept.find(digest(b"old")) is None
    assert "is not kept" in caplog.text
    assert not list((tmp_path / "models").iterdir())
