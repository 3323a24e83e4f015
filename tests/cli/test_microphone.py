"""`streamer listen` on a microphone that PortAudio opens: the end of a cable into which the test plays."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import queue
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from streamer.engine.catalogue import find_models
from tests.cli.command import ROOT, STREAMER, environment
from tests.cli.pulse import Cable, missing
from tests.cli.serving import serving
from tests.enhancers import CHUNK, DELAY, toy_enhancer
from tests.toys import speech, toy_model

pytestmark = pytest.mark.microphone

RATE = 16000
SAMPLE = ROOT / "samples" / "digits.flac"
#: Patience with a machine that does other things, too; nothing takes that long.
SECONDS = 60.0


def _need(names: list[str]) -> None:
    """Elsewhere a test may be skipped for want of a program; in CI that is a failure."""
    if names and os.environ.get("CI") == "true":
        pytest.fail(f"missing here: {', '.join(names)}")
    if names:
        pytest.skip(f"needs {', '.join(names)}")


@pytest.fixture
def cable(tmp_path: Path) -> Iterator[Cable]:
    _need(missing())
    cable = Cable(tmp_path)
    yield cable
    cable.close()


@pytest.fixture(scope="module")
def toy16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("models") / "toy.onnx", sample_rate=RATE, hop=160)


class Listener:
    """``streamer listen`` (or another command) with its lines as they come."""

    def __init__(
        self, cable: Cable, *arguments: str | Path, stdout: int = subprocess.PIPE, name: str = "listen"
    ) -> None:
        command = [*STREAMER, name, *map(str, arguments)]
        pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
        env = environment(cable.env)
        self.process = subprocess.Popen(command, env=env, stdin=nothing, stdout=stdout, stderr=pipe, text=True)
        self.out: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.err: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        for end, lines in ((self.process.stdout, self.out), (self.process.stderr, self.err)):
            if end is not None:
                threading.Thread(target=self._read, args=(end, lines), daemon=True).start()

    @staticmethod
    def _read(pipe: Any, lines: queue.SimpleQueue[str | None]) -> None:
        with pipe:
            for line in pipe:
                lines.put(line.rstrip("\n"))
        lines.put(None)

    @staticmethod
    def drain(read: int) -> None:
        with os.fdopen(read, "rb") as file:
            while file.read1(4096):
                pass

    @staticmethod
    def until(lines: queue.SimpleQueue[str | None], wanted: Callable[[str], bool]) -> list[str]:
        """Lines up to the first wanted one."""
        seen: list[str] = []
        while True:
            line = lines.get(timeout=SECONDS)
            assert line is not None, f"ended before it came: {seen}"
            seen.append(line)
            if wanted(line):
                return seen

    def listening(self) -> None:
        self.until(self.err, lambda line: line.startswith("listening to "))

    def event(self, **wanted: Any) -> dict[str, Any]:
        lines = self.until(self.out, lambda line: wanted.items() <= json.loads(line).items())
        return json.loads(lines[-1])

    def interrupt(self) -> int:
        """The exit code of Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(SECONDS)


def _wait(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def _talk(path: Path, text: str) -> Path:
    quiet = np.zeros(2 * RATE, np.int16)
    sf.write(path, np.concatenate([quiet[: RATE // 2], speech(text, RATE), quiet]), RATE)
    return path


def test_devices_are_listed(cable: Cable) -> None:
    listener = Listener(cable, "--list-devices")
    assert listener.process.wait(SECONDS) == 0
    lines = listener.until(listener.out, lambda line: line.startswith("*"))
    assert any("pulse" in line for line in [*lines, str(listener.out.get(timeout=SECONDS))])


def test_an_unknown_device_is_one_line(cable: Cable, toy16: Path) -> None:
    listener = Listener(cable, "--device", "no such thing", "--model", toy16)
    assert listener.process.wait(SECONDS) == 2
    assert "no microphone is called 'no such thing'" in str(listener.err.get(timeout=SECONDS))
    assert listener.err.get(timeout=SECONDS) is None


def test_what_is_played_is_read_and_a_lost_device_comes_back(cable: Cable, toy16: Path, tmp_path: Path) -> None:
    listener = Listener(cable, "--json", "--device", "default", "--model", toy16)
    listener.listening()
    _wait(cable.recording)
    cable.play(_talk(tmp_path / "one.wav", "ABBA"))
    first = listener.event(type="final")
    assert (first["text"], first["file"]) == ("ABBA", "default")

    cable.unplug()
    listener.until(listener.err, lambda line: "the microphone is gone" in line)
    cable.plug()
    gap = listener.event(type="gap")
    assert gap["seconds"] > 0
    listener.until(listener.err, lambda line: "the microphone is back" in line)

    _wait(cable.recording)
    cable.play(_talk(tmp_path / "two.wav", "BAB"))
    second = listener.event(type="final")
    assert second["text"] == "BAB"
    assert second["start"] > gap["start"] > first["end"]
    assert listener.interrupt() == 130


@pytest.mark.long
def test_the_cable_is_pulled_and_plugged_in_again(cable: Cable, toy16: Path, tmp_path: Path) -> None:
    listener = Listener(cable, "--json", "--model", toy16)
    listener.listening()
    _wait(cable.recording)
    cable.unload()
    listener.until(listener.err, lambda line: "the microphone is gone" in line)
    cable.load()
    assert listener.event(type="gap")["seconds"] > 0
    _wait(cable.recording)
    cable.play(_talk(tmp_path / "one.wav", "BAB"))
    assert listener.event(type="final")["text"] == "BAB"
    assert listener.interrupt() == 130


@pytest.mark.long
def test_a_daemon_listens_and_its_restart_is_only_a_delay(cable: Cable, toy16: Path, tmp_path: Path) -> None:
    folder = tmp_path / "daemon"
    folder.mkdir()
    with serving(folder, toy16) as url:
        listener = Listener(cable, "--json", "--url", url, "--model", "toy")
        listener.listening()
        _wait(cable.recording)
        cable.play(_talk(tmp_path / "one.wav", "ABBA"))
        first = listener.event(type="final")
        assert (first["text"], first["file"]) == ("ABBA", "default")
    with serving(folder, toy16, port=int(url.rpartition(":")[2])):
        cable.play(_talk(tmp_path / "two.wav", "BAB"))
        second = listener.event(type="final")
        assert second["text"] == "BAB"
        assert second["start"] > first["end"]
        assert listener.interrupt() == 130


@pytest.mark.long
def test_overruns_are_counted_and_shown(cable: Cable, toy16: Path, tmp_path: Path) -> None:
    """Whoever reads the output stops doing so, and the listener waits for him: nobody fetches from the microphone."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    listener = Listener(cable, "--json", "--model", toy16, stdout=write)
    os.close(write)
    listener.listening()
    _wait(cable.recording)
    cable.play(_talk(tmp_path / "long.wav", "AB" * 30))
    threading.Thread(target=listener.drain, args=(read,), daemon=True).start()
    told = listener.until(listener.err, lambda line: "overruns" in line)
    assert re.fullmatch(r"streamer: overruns: [1-9]\d* \(.*samples are missing\)", told[-1])
    assert listener.interrupt() == 130


@pytest.mark.long
def test_a_terminal_shows_level_text_and_overruns(cable: Cable, toy16: Path, tmp_path: Path) -> None:
    main, side = pty.openpty()
    env = environment({**cable.env, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "30"})
    command = [*STREAMER, "listen", "--text", "spoken", "--model", str(toy16)]
    process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=side, stderr=side)
    os.close(side)

    def until(pattern: bytes) -> bytes:
        seen = b""
        while not re.search(pattern, seen):
            seen += os.read(main, 4096)
        return seen

    try:
        until(rb"listening to ")
        _wait(cable.recording)
        player = threading.Thread(target=cable.play, args=(_talk(tmp_path / "one.wav", "ABBA"),))
        player.start()
        seen = until(rb"ABBA\r\n")
        player.join()
        assert re.search(rb"\xe2\x96\x88.* dB", seen)  # the meter moves
        assert re.search(rb"AB(?!BA)", seen)  # a partial, before the final
        assert re.search(rb"\x1b\[\d*[AK]", seen)  # redrawn in place
        assert not re.search(rb"ABBA\r\n.*ABBA", seen + until(rb"default"), re.S)  # not above and below at once
        os.write(main, b"\x13")  # Ctrl-S: the terminal takes no more, and the listener waits for it
        cable.play(_talk(tmp_path / "two.wav", "BAB"))
        cable.play(_talk(tmp_path / "long.wav", "AB" * 30))
        os.write(main, b"\x11")
        until(rb"overruns [1-9]\d*, interruptions 0")
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 130
    finally:
        process.kill()
        process.wait()
        os.close(main)


@pytest.mark.long
def test_plain_lines_for_so_many_seconds(cable: Cable, toy16: Path, tmp_path: Path) -> None:
    listener = Listener(cable, "--model", toy16, "--seconds", "6")
    listener.listening()
    _wait(cable.recording)
    cable.play(_talk(tmp_path / "one.wav", "AB"))
    assert listener.until(listener.out, bool) == ["AB"]
    assert listener.process.wait(SECONDS) == 0
    assert listener.out.get(timeout=SECONDS) is None


@pytest.mark.long
def test_lines_with_punctuation_and_capitals(cable: Cable, toy16: Path, tmp_path: Path) -> None:
    listener = Listener(cable, "--model", toy16, "--text", "written", "--seconds", "6")
    listener.listening()
    _wait(cable.recording)
    cable.play(_talk(tmp_path / "one.wav", "AB"))
    (line,) = listener.until(listener.out, bool)
    assert re.fullmatch(r"A[Bb][,.?]?", line)
    assert line != "AB"
    assert listener.process.wait(SECONDS) == 0


@pytest.mark.long
def test_the_sample_is_read_by_the_shipped_model(cable: Cable) -> None:
    _need([] if "digits" in [path.stem for path in find_models()] else ["models/pretrained/digits.onnx"])
    expected = SAMPLE.with_suffix(".txt").read_text("utf-8").split()
    listener = Listener(cable, "--json", "--model", "digits")
    listener.listening()
    _wait(cable.recording)
    cable.play(SAMPLE)
    words: list[str] = []
    while len(words) < len(expected):
        words += listener.event(type="final")["text"].split()
    assert words == expected
    assert listener.interrupt() == 130


@pytest.mark.long
def test_sentences_are_read_by_the_shipped_english(cable: Cable) -> None:
    """No model is named. It gets some words wrong; most are the recording's."""
    _need([] if "english" in [path.stem for path in find_models()] else ["models/pretrained/english.onnx"])
    sample = SAMPLE.with_name("english.opus")
    said = sample.with_suffix(".txt").read_text("utf-8").split()
    listener = Listener(cable, "--json")
    listener.listening()
    _wait(cable.recording)
    cable.play(sample)
    words: list[str] = []
    while "leaves" not in words and len(words) < len(said) - 3:
        words += listener.event(type="final")["text"].split()
    heard = SequenceMatcher(None, said, words).get_matching_blocks()
    assert sum(block.size for block in heard) > 0.6 * len(said)
    assert listener.interrupt() == 130


@pytest.mark.long
def test_what_is_enhanced_live_is_what_was_played(cable: Cable, tmp_path: Path) -> None:
    """Turned upside down by the model, whole, in a file; Ctrl-C ends it."""
    pcm = np.random.default_rng(1).integers(-9000, 9000, 2 * RATE).astype(np.int16)
    quiet = np.zeros(RATE, np.int16)
    sf.write(tmp_path / "noise.wav", np.concatenate([quiet, pcm, quiet]), RATE)
    out, model = tmp_path / "out.wav", toy_enhancer(tmp_path, RATE)
    listener = Listener(cable, "--listen", "--model", model, "-o", out, name="enhance")
    said = listener.until(listener.err, lambda line: "Ctrl-C ends" in line)
    assert f"to {out}, {1000 * (CHUNK + DELAY) / RATE:.0f} ms late" in said[-1]
    _wait(cable.recording)
    cable.play(tmp_path / "noise.wav")
    assert listener.interrupt() == 130
    came, rate = sf.read(out, dtype="int16")
    assert rate == RATE
    size = 2 ** int(np.ceil(np.log2(len(came) + len(pcm))))
    at = int(np.argmax(np.fft.irfft(np.fft.rfft(-came.astype(float), size) * np.fft.rfft(pcm, size).conj(), size)))
    assert np.abs(came[at : at + len(pcm)].astype(int) + pcm).max() <= 2
