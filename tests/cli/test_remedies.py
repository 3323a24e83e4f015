"""Errors say what to do next: what a user does wrong most, and the words that help."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import one_line, streamer


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["transcribe", ""], "FILE: the name is empty"),
        (["transcribe", "-o", "", "{sound}"], "--output: the name is empty"),
        (["transcribe", "--hotwords=", "{sound}"], "--hotwords: the name is empty"),
        (["forecast", ""], "FILE: the name is empty"),
        (["forecast", "--plot", "", "{sound}"], "--plot: the name is empty"),
        (["enhance", "{sound}", "-o", ""], "--output: the name is empty"),
        (["run", "digits", ""], "FILE: the name is empty"),
        (["adopt", ""], "FILE: the name is empty"),
        (["sessions", "import", "x", ""], "FILE: the name is empty"),
        (["sign", "--key", "", "{sound}"], "--key: the name is empty"),
        (["transcribe", "https://a.b/c.wav"], "https://a.b/c.wav: is an address, not a file's name: curl -sL 'https"),
        (["transcribe", "rtsp://a.b/c"], "ffmpeg -v error -i 'rtsp://a.b/c' -f wav - | streamer transcribe -"),
        (["transcribe", "file:///tmp/x.wav"], "file:///tmp/x.wav: is an address, not a file's name: name /tmp/x.wav"),
        (["transcribe", "{sound}", "-o", "s3://a/b"], "--output s3://a/b: is an address"),
        (["forecast", "http://a/b.csv"], "curl -sL 'http://a/b.csv' | streamer forecast -"),
        (["run", "digits", "http://a/b.csv"], "curl -sL 'http://a/b.csv' | streamer run MODEL -"),
        (["adopt", "https://a/b.onnx"], "download it first (curl -LO 'https://a/b.onnx')"),
    ],
)
def test_a_name_of_no_file_is_shown_as_typed(line: list[str], said: str, recording: Path, tmp_path: Path) -> None:
    done = streamer(*(word.format(sound=recording) for word in line), cwd=tmp_path)
    assert said in one_line(done.stderr)
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("check nothing", "there are: "),
        ("check", "--help shows how"),
        ("top --url http://127.0.0.1:9", "start one with streamer serve, or name another with --url"),
        ("sessions list --url http://127.0.0.1:9", "start one with streamer serve, or name another with --url"),
        ("drain --to nonsense --url nonsense", "http://HOST:PORT is expected"),
        ("transcribe --url ws://127.0.0.1:9 {sound}", "start one with streamer serve, or leave --url out"),
        ("transcribe --url ftp://x {sound}", "expected something like ws://127.0.0.1:8765"),
        ("transcribe --url wss://127.0.0.1:9 --ca nothing.pem {sound}", "start one with"),
        ("transcribe --srt --vtt {sound}", "leave one out"),
        (
            "transcribe --revise on {sound}",
            "--revise on is for --url: name a Whisper model here, such as --revise base",
        ),
        ("listen --revise on", "--revise on is for --url: name a Whisper model here, such as --revise base"),
        ("transcribe --revise ./nothing {sound}", "--revise: "),
        ("transcribe --revise base --url ws://127.0.0.1:9 {sound}", "say on or off"),
        ("transcribe {sound} {sound}", "name it once"),
        ("transcribe --hotwords nothing.txt {sound}", "check the name"),
        ("forecast nothing.csv", "no such file"),
        ("forecast --follow nothing.csv", "leave out --follow, or name another"),
        ("forecast --json --csv {table}", "leave one out"),
        ("forecast --last 3 {table}", "add one of them"),
        ("forecast --decimal x {table}", "give '.' or ','"),
        ("forecast --plot picture.gif {table}", "name a file that ends in .png"),
        ("forecast --parquet no/where.parquet {table}", "make it first"),
        ("forecast --scores no/where.json {table}", "check the name"),
        ("forecast --capacity 1 {table}", "--capacity allows more"),
        ("enhance {sound}", "-o FILE.wav"),
        ("enhance {sound} -o no/where.wav", "make it first"),
        ("enhance {sound} -o {sound}", "choose another name"),
        ("enhance {sound} --device x", "add it, or leave --device out"),
        ("generate --set nonsense", "say for instance"),
        ("generate --model spoken-digits", "give a file with -o FILE.wav"),
        ("generate --model music -o tune.txt", "name a file that ends in"),
        ("sign x.onnx", "streamer sign --help shows how"),
    ],
)
def test_what_to_do_next(line: str, remedy: str, recording: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("time,a,b\n" + "".join(f"2026-01-01 00:{minute:02d},{minute},2\n" for minute in range(9)))
    done = streamer(*line.format(sound=recording, table=table).split(), cwd=tmp_path)
    assert remedy in one_line(done.stderr)
    assert done.returncode in (1, 2)
