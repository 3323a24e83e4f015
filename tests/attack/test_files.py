"""Hostile model files: all of them in this process, a few against a daemon of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.attack import Scale
from bench.attack.files import CASES, run, write
from streamer.contract.signature import make_key, sign
from streamer.engine.model import ModelError
from streamer.metrics import Metrics
from streamer.settings import Settings
from streamer.streams.loading import load_engine
from tests.toys import toy_model

pytestmark = pytest.mark.long


@pytest.mark.parametrize("name", sorted(set(CASES) - {"a device"}))
def test_each_is_refused_with_what_may_be_done(name: str, tmp_path: Path) -> None:
    make, wanted = CASES[name]
    path = make(tmp_path / "hostile.onnx")
    with pytest.raises(ModelError) as caught:
        load_engine(path, Settings(state_directory=tmp_path), Metrics())
    assert wanted in str(caught.value)
    assert len(str(caught.value)) < 10_000


def test_a_daemon_is_none_the_worse(tmp_path: Path) -> None:
    rows = list(run(Scale(0.1)))
    assert len(rows) == 4
    assert [row for row in rows if not row.held] == []


def test_a_batch_that_does_not_fit_is_smaller(tmp_path: Path) -> None:
    engine = load_engine(
        toy_model(tmp_path), Settings(state_directory=tmp_path, max_model_bytes=40_000, lanes=1), Metrics()
    )
    assert 1 <= engine.limit * engine.manifest.chunk_bytes <= 40_000


def test_a_model_without_a_signature_is_not_loaded_where_one_is_asked_for(tmp_path: Path) -> None:
    path = toy_model(tmp_path)
    key = make_key(tmp_path / "me.key", tmp_path / "me.pub")
    make_key(tmp_path / "other.key", tmp_path / "other.pub")
    settings = Settings(state_directory=tmp_path, model_keys=(str(tmp_path / "me.pub"),))
    with pytest.raises(ModelError, match="not signed"):
        load_engine(path, settings, Metrics())
    sign(path, tmp_path / "me.key", "")
    assert load_engine(path, settings, Metrics()).manifest.name == "toy"
    sign(path, tmp_path / "other.key", "")
    with pytest.raises(ModelError, match="not in the setting model_keys"):
        load_engine(path, settings, Metrics())
    sign(path, tmp_path / "me.key", "")
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ModelError, match="changed since"):
        load_engine(path, settings, Metrics())
    with pytest.raises(ModelError, match="model_keys: "):
        load_engine(path, Settings(state_directory=tmp_path, model_keys=("nonsense",)), Metrics())
    assert str(key)


def test_a_model_that_fits_is_served(tmp_path: Path) -> None:
    """What the cases are made of is no reason."""
    from bench.attack.files import _manifest

    path = write(tmp_path / "fits.onnx", _manifest((4, 1), (1,), (4, 1)))
    assert load_engine(path, Settings(state_directory=tmp_path), Metrics()).manifest.name == "hostile"
