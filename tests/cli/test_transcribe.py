"""`streamer transcribe`, in process: formats, outputs, several files."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from streamer.streams.resampler import Resampler
from tests.cli.command import ROOT, STREAMER, environment, events, finals, one_line, streamer
from tests.cli.conftest import RATE, utterances
from tests.toys import speech

LINES = b"AB\nBBA\n"


def test_text_is_one_line_for_each_utterance(toy: Path, recording: Path) -> None:
    done = streamer("transcribe", "--model", toy, recording)
    assert (done.stdout, done.stderr, done.returncode) == (LINES, b"", 0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.flac", {}),
        pytest.param("a.wav", {"subtype": "FLOAT"}, marks=pytest.mark.long),
        pytest.param("a.wav", {"subtype": "PCM_24"}, marks=pytest.mark.long),
    ],
)
def test_formats_without_loss_give_the_same_events(
    toy: Path, recording: Path, tmp_path: Path, name: str, options: dict
) -> None:
    pcm, rate = sf.read(recording)
    sf.write(tmp_path / name, pcm, rate, **options)
    found = [events(streamer("transcribe", "--json", "--model", toy, f).stdout) for f in (recording, tmp_path / name)]
    for event in (*found[0], *found[1]):
        event.pop("file")
    assert found[0] == found[1]
    assert finals(found[0]) == ["AB", "BBA"]


@pytest.mark.parametrize(
    ("name", "options"), [("a.mp3", {"format": "MP3"}), ("a.opus", {"format": "OGG", "subtype": "OPUS"})]
)
def test_lossy_formats(toy: Path, tmp_path: Path, name: str, options: dict) -> None:
    """They take away constant levels, so all that is asked is that they are read to the end."""
    tone = (12000 * np.sin(np.arange(16000 * 3) * 0.3)).astype(np.int16)
    sf.write(tmp_path / name, tone, 16000, **options)
    done = streamer("transcribe", "--model", toy, tmp_path / name)
    assert (done.stderr, done.returncode) == (b"", 0)


def test_channels_are_mixed_down_and_that_is_said(toy: Path, recording: Path, tmp_path: Path) -> None:
    pcm, rate = sf.read(recording, dtype="int16")
    sf.write(tmp_path / "stereo.wav", np.stack([pcm, pcm], axis=1), rate)
    done = streamer("transcribe", "--model", toy, tmp_path / "stereo.wav")
    assert (done.stdout, done.returncode) == (LINES, 0)
    assert one_line(done.stderr).endswith("stereo.wav: 2 channels, mixed down to one")


def test_raw_pcm_on_standard_input(toy: Path) -> None:
    done = streamer("transcribe", "-", "--rate", str(RATE), "--model", toy, stdin=utterances("AB", "BBA").tobytes())
    assert (done.stdout, done.stderr, done.returncode) == (LINES, b"", 0)


def test_a_pipe_is_answered_before_it_ends(toy: Path) -> None:
    """Live input: the final comes while the writer still holds the pipe open."""
    command = [*STREAMER, "transcribe", "-", "--rate", str(RATE), "--model", str(toy)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(utterances("AB").tobytes())
        process.stdin.flush()
        assert process.stdout.readline() == b"AB\n"
        process.stdin.write(utterances("BA").tobytes())
        process.stdin.close()
        assert process.stdout.read() == b"BA\n"
    assert process.returncode == 0


def test_a_wrong_rate_for_a_pipe_is_refused(toy: Path) -> None:
    done = streamer("transcribe", "-", "--rate", "4000", "--model", toy, stdin=bytes(800))
    assert "4000" in one_line(done.stderr)
    assert done.returncode == 2


def test_srt(toy: Path, recording: Path) -> None:
    done = streamer("transcribe", "--srt", "--text", "spoken", "--model", toy, recording)
    cues = done.stdout.decode().strip().split("\n\n")
    assert len(cues) == 2
    for number, (cue, text) in enumerate(zip(cues, ["AB", "BBA"], strict=True), 1):
        assert re.fullmatch(rf"{number}\n00:00:0\d,\d{{3}} --> 00:00:0\d,\d{{3}}\n{text}", cue)


def test_vtt_into_a_folder(toy: Path, recording: Path, tmp_path: Path) -> None:
    plain = ("--text", "spoken")
    done = streamer("transcribe", "--vtt", *plain, "--model", toy, "-o", f"{tmp_path}/out/", recording)
    assert (done.stdout, done.stderr, done.returncode) == (b"", b"", 0)
    text = (tmp_path / "out" / "talk.vtt").read_text("utf-8")
    assert text.startswith("WEBVTT\n\n00:00:0")
    assert [line for line in text.splitlines() if "-->" not in line and line] == ["WEBVTT", "AB", "BBA"]


@pytest.mark.long
def test_several_files_keep_their_order_and_share_the_engine(toy: Path, tmp_path: Path) -> None:
    texts = {"a": "ABAB", "b": "BA", "c": "AAB", "d": "B", "e": "ABA"}
    for name, text in texts.items():
        sf.write(tmp_path / f"{name}.wav", speech(text, RATE), RATE)
    done = streamer("transcribe", "--model", toy, "--jobs", "3", *(f"{n}.wav" for n in texts), cwd=tmp_path)
    assert done.stdout.decode() == "".join(f"{n}.wav: {text}\n" for n, text in texts.items())
    together = streamer("transcribe", "--json", "--model", toy, *(f"{n}.wav" for n in texts), cwd=tmp_path)
    for name in texts:
        alone = events(streamer("transcribe", "--json", "--model", toy, f"{name}.wav", cwd=tmp_path).stdout)
        assert [e for e in events(together.stdout) if e["file"] == f"{name}.wav"] == alone


def test_every_file_gets_its_own_output(toy: Path, recording: Path, tmp_path: Path) -> None:
    shutil.copy(recording, tmp_path / "other.wav")
    done = streamer("transcribe", "--model", toy, "-o", tmp_path / "out", recording, tmp_path / "other.wav")
    assert (done.stdout, done.returncode) == (b"", 0)
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == {"talk.txt": LINES, "other.txt": LINES}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--srt", "--vtt", "a.wav"], "--srt and --vtt exclude each other"),
        (["--srt", "a.wav", "b.wav"], "subtitles of several files need a folder"),
        (["a.wav", "a.wav"], "a.wav is given twice"),
        (["-o", "out/", "x/a.wav", "y/a.wav"], "would both be written to out/a.txt"),
        (["--model", "nothing", "a.wav"], "no model 'nothing'"),
        (["--jobs", "0", "a.wav"], "--jobs"),
        (["--url", "ftp://x", "a.wav"], "expected something like ws://"),
        ([], "Missing argument"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = streamer("transcribe", *arguments, cwd=tmp_path)
    assert message in one_line(done.stderr)
    assert (done.stdout, done.returncode) == (b"", 2)


def test_no_daemon_at_the_url(recording: Path) -> None:
    done = streamer("transcribe", "--url", "ws://127.0.0.1:9", recording)
    assert "no daemon at ws://127.0.0.1:9" in one_line(done.stderr)
    assert done.returncode == 1


def test_interrupt_is_clean(toy: Path) -> None:
    command = [*STREAMER, "transcribe", "-", "--rate", str(RATE), "--model", str(toy)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment()) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(utterances("AB").tobytes())
        process.stdin.flush()
        assert process.stdout.readline() == b"AB\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read() == b""


def test_a_reader_that_goes_away_is_no_error(toy: Path, recording: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [*STREAMER, "transcribe", "--json", "--model", str(toy), str(recording)],
            stdout=write, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment(), timeout=60,
        )  # fmt: skip
    finally:
        os.close(write)
    assert (done.stderr, done.returncode) == (b"", 141)


@pytest.mark.long
def test_hotwords_come_from_a_file(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("\ufeff# digits that are expected\nseven\n\n  nine nine \n", encoding="utf-8")
    sample = ROOT / "samples" / "digits.flac"
    heard = streamer("transcribe", "--model", "digits", "--hotwords", words, sample)
    assert heard.stdout.split() == (ROOT / "samples" / "digits.txt").read_bytes().split()
    words.write_text("Kubernetes\n")
    refused = streamer("transcribe", "--model", "digits", "--hotwords", words, sample)
    assert (refused.stdout, refused.returncode) == (b"", 2)
    assert "'Kubernetes' is not in the model's lexicon" in one_line(refused.stderr)
    missing = streamer("transcribe", "--model", "digits", "--hotwords", tmp_path / "none.txt", sample)
    assert (missing.stdout, missing.returncode) == (b"", 2)
    assert "none.txt" in one_line(missing.stderr)


@pytest.mark.long
def test_digits_hears_a_telephone_too(tmp_path: Path) -> None:
    """At 8 kHz it reads what it reads at 16 kHz, and a model that did not learn to still refuses."""
    wide, rate = sf.read(ROOT / "samples" / "digits.flac", dtype="int16")
    sf.write(tmp_path / "narrow.wav", Resampler(rate, 8000).push(wide), 8000)
    heard = streamer("transcribe", "--model", "digits", tmp_path / "narrow.wav")
    assert heard.stdout.split() == (ROOT / "samples" / "digits.txt").read_bytes().split()
    refused = streamer("transcribe", "--model", "english", tmp_path / "narrow.wav")
    assert refused.returncode != 0
    assert "record at 16000 Hz" in one_line(refused.stderr)


@pytest.mark.long
@pytest.mark.soak
def test_thousands_of_files_take_no_more_memory_than_some(toy: Path, recording: Path, tmp_path: Path) -> None:
    """Every file is answered, one that can't be read stops none, and the summary counts."""
    pcm, rate = sf.read(recording, dtype="int16")
    names = [f"{number:05d}.wav" for number in range(1200)]
    sf.write(tmp_path / names[0], pcm, rate)
    for name in names[1:]:
        os.link(tmp_path / names[0], tmp_path / name)
    bad = names[834]
    (tmp_path / bad).unlink()
    (tmp_path / bad).write_bytes(b"no sound at all")

    def run(some: list[str]) -> tuple[list[str], str, int, float]:
        """The lines, the last one of standard error, the exit code, and MiB at most."""
        with (tmp_path / "out").open("w+") as out, (tmp_path / "err").open("w+") as err:
            command = [*STREAMER, "transcribe", "--json", "--model", str(toy), *some]
            running = subprocess.Popen(command, stdout=out, stderr=err, cwd=tmp_path, env=environment())
            _, status, usage = os.wait4(running.pid, 0)
            running.returncode = os.waitstatus_to_exitcode(status)
            for file in (out, err):
                file.seek(0)
            return out.read().splitlines(), err.read().splitlines()[-1], running.returncode, usage.ru_maxrss / 1024

    _, _, code, little = run(names[:60])
    assert code == 0
    lines, last, code, much = run(names)
    said = [event for event in events("\n".join(lines).encode()) if event["type"] == "final"]
    texts: dict[str, list[str]] = {}
    for event in said:
        texts.setdefault(event["file"], []).append(event["text"])
    assert texts == {name: ["AB", "BBA"] for name in names if name != bad}
    assert code != 0
    assert "1200" in last
    assert much < little + 40
