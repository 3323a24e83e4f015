"""Sound as it comes: what a pipe gives is decoded before the pipe ends, and little of it is kept."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from numpy.typing import NDArray

from streamer.commands.backends import Local
from streamer.sources import SourceError
from streamer.sources.channels import Mixer, scale_of
from streamer.sources.files import AudioFile
from streamer.sources.memory import MemorySource
from streamer.sources.source import KEPT, RECENT, Source
from tests.cli.conftest import RATE
from tests.inputs.recordings import TALK, UNKNOWN, wav

LIVE = [("WAV", None), ("AU", None), ("MP3", None), ("OGG", "OPUS"), ("FLAC", None)]


def _noise(seconds: float, rate: int = 16000) -> NDArray[np.int16]:
    return np.random.default_rng(2).normal(0, 2000, round(seconds * rate)).astype(np.int16)


def test_no_message_names_the_copy_that_ffmpeg_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy's path is the daemon's; what ffmpeg says of it reaches clients."""
    program = tmp_path / "ffmpeg"
    program.write_text(
        "#!/bin/sh\nwhile [ $1 != -i ]; do shift; done\n"
        'echo "[mov @ 0x5] $2: moov atom not found; Error opening input file $2.; $2: Invalid data" >&2\nexit 1\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    damaged = b"\0\0\0\x18ftypM4A " + bytes(100)
    said = "talk.m4a: is MP4 or M4A that ffmpeg can't decode ([mov @ 0x5] moov atom not found; Error opening input file"
    with pytest.raises(SourceError) as refused:
        AudioFile(None, source=MemorySource(damaged), name="talk.m4a")
    assert str(refused.value) == f"{said} the file.; Invalid data)"
    (tmp_path / "talk.m4a").write_bytes(damaged)
    with pytest.raises(SourceError) as refused:
        AudioFile(tmp_path / "talk.m4a")
    assert str(refused.value) == f"{tmp_path}/{said} the file.; Invalid data)"


@pytest.mark.parametrize(("format", "subtype"), LIVE)
def test_a_pipe_is_decoded_while_it_is_written(format: str, subtype: str | None, tmp_path: Path) -> None:
    sf.write(tmp_path / "long", _noise(30), 16000, format=format, subtype=subtype)
    data = (tmp_path / "long").read_bytes()
    read, write = os.pipe()
    half = data[: len(data) // 2]  # the rest never comes

    def fill() -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(write, half)

    thread = threading.Thread(target=fill)
    thread.start()
    file = AudioFile(None, source=Source(read))
    blocks = file.blocks()
    assert sum(len(next(blocks)) for _ in range(50)) == 50 * 2 * 1600
    file.close()
    thread.join()
    os.close(write)


def test_little_of_a_pipe_is_kept() -> None:
    read, write = os.pipe()
    size = 30 * 2**20

    def fill() -> None:
        for _ in range(size // 2**16):
            os.write(write, bytes(2**16))
        os.close(write)

    thread = threading.Thread(target=fill)
    thread.start()
    source = Source(read)
    assert sum(map(len, source.pieces(0))) == size
    thread.join()
    assert len(source._first) + len(source._recent) <= KEPT + 2 * RECENT + 2 * 2**16
    assert source.at(10, 20) == bytes(20)
    assert source.at(KEPT + 2**21, 10) == b""  # let go of
    assert source.at(size - 5, 10) == bytes(5)
    source.close()


def test_a_file_goes_on_where_it_stands(tmp_path: Path) -> None:
    """As with ``(read line; streamer transcribe -) < file``."""
    (tmp_path / "both").write_bytes(b"one line\n" + wav())
    fd = os.open(tmp_path / "both", os.O_RDONLY)
    os.lseek(fd, 9, os.SEEK_SET)
    file = AudioFile(None, source=Source(fd))
    assert sum(map(len, file.blocks())) == 2 * len(TALK)
    file.close()


@pytest.mark.parametrize("size", [None, 0, UNKNOWN, 0x7FFFFF00, len(TALK)])
def test_the_samples_are_those_of_the_file(size: int | None, tmp_path: Path) -> None:
    """Whatever its header says."""
    (tmp_path / "x.wav").write_bytes(wav(size))
    file = AudioFile(tmp_path / "x.wav")
    assert b"".join(file.blocks()) == TALK.tobytes()
    assert file.rate == RATE
    file.close()


def test_mp3_begins_and_ends_as_it_was_given(tmp_path: Path) -> None:
    """The encoder's delay is taken away, as its tag says it."""
    pcm = (8000 * np.sin(np.arange(2 * RATE) ** 1.2 / 50)).astype(np.int16)
    sf.write(tmp_path / "x.mp3", pcm, RATE, format="MP3")
    file = AudioFile(tmp_path / "x.mp3")
    found = np.frombuffer(b"".join(file.blocks()), np.int16)
    file.close()
    assert abs(len(found) - len(pcm)) <= 1152
    assert np.corrcoef(found[1000:9000], pcm[1000:9000])[0, 1] > 0.98


def test_channels_that_cancel_only_for_a_while() -> None:
    """The louder one is taken where they do; elsewhere both are heard."""
    said: list[str] = []
    mixer = Mixer(2, 100, None, said.append)
    left, right = np.random.default_rng(1).normal(0, 0.1, (2, 50)).astype(np.float32)
    both = mixer.mono(np.stack([left, right], 1))
    assert np.allclose(both, (left + right) / 2)
    assert np.allclose(mixer.mono(np.stack([left, -left], 1)), left)
    assert np.allclose(mixer.mono(np.stack([left, right], 1)), both)
    assert np.allclose(mixer.mono(np.stack([left, 0 * left], 1)), left / 2)  # somebody else may speak there later
    assert len(said) == 2
    assert "at 0.50 s" in said[1]


def test_six_channels_of_which_one_speaks() -> None:
    rng = np.random.default_rng(1)
    block = rng.normal(0, 1e-4, (800, 6)).astype(np.float32)
    block[:, 2] += rng.normal(0, 0.2, 800).astype(np.float32)
    mono = Mixer(6, 8000, None, lambda text: None).mono(block)
    assert np.corrcoef(mono, block[:, 2])[0, 1] > 0.99


def test_scales() -> None:
    assert [scale_of(p) for p in (0.5, 1.9, 5.0, 20000.0, 8e6, 2e9)] == [1, 1, 5, 2**15, 2**23, 2**31]
    with pytest.raises(SourceError, match="on no scale"):
        scale_of(1e30)


def test_a_file_that_is_over_leaves_no_stream_behind(toy: Path) -> None:
    local = Local(str(toy), 2, "transcribe", {})
    for _ in range(20):
        over = threading.Event()

        def take(event: dict[str, Any], over: threading.Event = over) -> None:
            if event["type"] == "end":
                over.set()

        feed = local.open(RATE, take)
        feed.send(TALK.tobytes())
        feed.end()
        assert over.wait(60)
        feed.close()
    assert local._registry._table.all() == []
    local.close()
