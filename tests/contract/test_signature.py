"""Signatures of model files: minisign's formats, and everything that does not fit is refused."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import pytest

from streamer.contract.signature import (
    PublicKey,
    SignatureError,
    make_key,
    read_public_key,
    sign,
    signature_of,
    verify,
)

#: Made by minisign 0.11: the key of its own releases and the signature in its README.
MINISIGN = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Path, PublicKey]:
    path = tmp_path / "plant.onnx"
    path.write_bytes(b"a model" * 1000)
    key = make_key(tmp_path / "me.key", tmp_path / "me.key.pub")
    assert sign(path, tmp_path / "me.key", "version 3") == tmp_path / "plant.onnx.minisig"
    return path, key


def test_what_was_signed_is_what_is_there(signed: tuple[Path, PublicKey], tmp_path: Path) -> None:
    path, key = signed
    assert verify(path.read_bytes(), signature_of(path), [key]) == "version 3"
    assert read_public_key(str(tmp_path / "me.key.pub")) == read_public_key(str(key)) == key
    assert (tmp_path / "me.key").stat().st_mode & 0o077 == 0


def test_a_key_of_minisign_is_read() -> None:
    assert str(read_public_key(MINISIGN)) == MINISIGN


@pytest.mark.parametrize("what", ["file", "signature", "comment", "key"])
def test_whatever_was_changed_does_not_fit(signed: tuple[Path, PublicKey], what: str) -> None:
    path, key = signed
    data, text = path.read_bytes(), signature_of(path)
    lines = text.splitlines()
    if what == "file":
        data = data[:-1] + b"\0"
    elif what == "signature":
        raw = bytearray(base64.b64decode(lines[1]))
        raw[20] ^= 1
        lines[1] = base64.b64encode(raw).decode()
    elif what == "comment":
        lines[2] = lines[2].replace("3", "4")
    else:
        key = PublicKey(key.id, bytes(reversed(key.raw)))
    with pytest.raises(SignatureError):
        verify(data, "\n".join(lines) + "\n", [key])


def test_no_cut_and_no_garbage_passes_or_breaks(signed: tuple[Path, PublicKey]) -> None:
    path, key = signed
    text = signature_of(path)
    for end in range(0, len(text) - 1, 7):
        with pytest.raises(SignatureError):
            verify(path.read_bytes(), text[:end], [key])
    for garbage in ("", "\n\n\n\n", "a\nb\ntrusted comment: c\nd", "\x00" * 500, "é" * 40):
        with pytest.raises(SignatureError):
            verify(path.read_bytes(), garbage, [key])


def test_a_key_of_nobody_is_named(signed: tuple[Path, PublicKey]) -> None:
    path, key = signed
    with pytest.raises(SignatureError, match=key.id[::-1].hex().upper()):
        verify(path.read_bytes(), signature_of(path), [PublicKey(b"12345678", key.raw)])


def test_no_key_is_written_over(signed: tuple[Path, PublicKey], tmp_path: Path) -> None:
    before = (tmp_path / "me.key").read_bytes()
    with pytest.raises(SignatureError, match="can't write"):
        make_key(tmp_path / "me.key", tmp_path / "other.pub")
    assert (tmp_path / "me.key").read_bytes() == before


@pytest.mark.skipif(shutil.which("minisign") is None, reason="minisign is not installed")
def test_minisign_agrees(signed: tuple[Path, PublicKey], tmp_path: Path) -> None:
    path, key = signed
    command = ["minisign", "-Vm", str(path), "-P", str(key)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    (tmp_path / "plant.onnx.minisig").unlink()
    command = ["minisign", "-Sm", str(path), "-s", str(tmp_path / "me.key")]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    verify(path.read_bytes(), signature_of(path), [key])
