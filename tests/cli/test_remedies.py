"""Errors say what to do next: what a user does wrong most, and the words that help."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import one_line, streamer


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
