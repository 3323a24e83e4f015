"""The secret behind the keys of sequences."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamer.serve.kserve.lasting import lasting_secret


def test_a_secret_is_made_once_and_for_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "state" / "kserve.secret"
    made = lasting_secret(path)
    assert len(made) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert lasting_secret(path) == made
    assert [found.name for found in path.parent.iterdir()] == ["kserve.secret"]


@pytest.mark.parametrize("damaged", [b"", b"short", bytes(33)])
def test_a_damaged_secret_is_replaced_for_good(
    tmp_path: Path, damaged: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "kserve.secret"
    path.write_bytes(damaged)
    made = lasting_secret(path)
    assert "is damaged and replaced" in caplog.text
    caplog.clear()
    assert lasting_secret(path) == made == path.read_bytes()
    assert caplog.text == ""


def test_where_it_cannot_be_kept_there_is_one_all_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("no directory")
    assert len(lasting_secret(tmp_path / "file" / "kserve.secret")) == 32
    assert "sequences end with the daemon" in caplog.text
