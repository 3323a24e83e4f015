"""Run by scripts/run: one daemon, one recording, one transcript; then forecasts of the two sensors of a sample file.
Uses only the installed commands, as a user would."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any

import soundfile

ROOT = Path(__file__).resolve().parent.parent
SENSOR = ROOT / "samples" / "sensor.csv"
ENGLISH = ROOT / "samples" / "english.opus"
START_SECONDS = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a file or a shipped name; default: digits, with every shipped model loaded")
    parser.add_argument("--sample", type=Path, default=ROOT / "samples" / "digits.flac")
    parser.add_argument("--speed", type=float, default=4.0, help="times real time (default: 4)")
    given = parser.parse_args()
    expected = given.sample.with_suffix(".txt").read_text("utf-8").split()
    with tempfile.TemporaryDirectory() as state:
        daemon, base = start(given.model, Path(state))
        try:
            print(f"daemon at {base}, metrics at {base}/metrics")
            heard = stream(base, Path(given.model or "digits").stem, given.sample, given.speed)
            if given.model is None:
                sentences(base, given.speed)
            seconds = metric(base, "streamer_audio_seconds_total")
            print(f"metrics: {seconds:.1f} s of audio were run")
        finally:
            daemon.send_signal(signal.SIGTERM)
            code = daemon.wait(60)
    print(f"daemon stopped by SIGTERM, exit code {code}")
    if heard != expected:
        print(f"heard:    {' '.join(heard)}\nexpected: {' '.join(expected)}", file=sys.stderr)
        return 1
    if code != 0:
        return 1
    print(f"all {len(expected)} words are right")
    print(f"\nstreamer forecast {SENSOR.relative_to(ROOT)}", flush=True)
    return subprocess.run([sys.executable, "-m", "streamer", "forecast", str(SENSOR)]).returncode


def sentences(base: str, speed: float) -> None:
    """Print how many words of the English sample are recognised. This does not change the exit code, since the model
    makes errors on sentences."""
    said = ENGLISH.with_suffix(".txt").read_text("utf-8").split()
    heard = stream(base, "english", ENGLISH, speed)
    right = sum(
        block.size for block in difflib.SequenceMatcher(None, said, heard, autojunk=False).get_matching_blocks()
    )
    print(f"english: {right} of {len(said)} words are right")


def start(model: str | None, state: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start the daemon on a free port and wait until it is ready; exits with the daemon's log if it fails."""
    port_file, log = state / "port", state / "log"
    config = state / "streamer.toml"
    config.write_text(f'state_directory = "{state}"\n')
    command = [
        sys.executable,
        "-m",
        "streamer",
        "serve",
        "--config",
        str(config),
        "--port",
        "0",
        "--port-file",
        str(port_file),
    ]
    command += ["--model", model] if model else []
    with log.open("wb") as sink:
        daemon = subprocess.Popen(command, stdout=sink, stderr=sink)
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and daemon.poll() is None:
        if port_file.exists():
            base = f"http://127.0.0.1:{port_file.read_text().strip()}"
            try:
                with urllib.request.urlopen(f"{base}/readyz", timeout=5):
                    return daemon, base
            except urllib.error.URLError:  # 503 until the models are warm
                pass
        time.sleep(0.05)
    daemon.kill()
    daemon.wait()
    sys.exit(f"the daemon did not become ready:\n{log.read_text()}")


def stream(base: str, model: str, sample: Path, speed: float) -> list[str]:
    """Run `streamer transcribe -`, fed at the given speed; shows the partials, returns the words of the finals."""
    pcm, rate = soundfile.read(sample, dtype="int16")
    command = [sys.executable, "-m", "streamer", "transcribe", "-", "--json"]
    command += ["--rate", str(rate), "--url", base, "--model", model]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        feeder = threading.Thread(target=feed, args=(client.stdin, pcm.tobytes(), rate, speed))
        feeder.start()
        words: list[str] = []
        for line in client.stdout:
            event = json.loads(line)
            show(event)
            if event["type"] == "final":
                words += event["text"].split()
        feeder.join()
    if client.returncode:
        sys.exit(client.returncode)
    return words


def feed(pipe: IO[bytes], pcm: bytes, rate: int, speed: float) -> None:
    step = rate // 10 * 2
    started = time.monotonic()
    try:
        for count, at in enumerate(range(0, len(pcm), step)):
            time.sleep(max(0.0, started + count * 0.1 / speed - time.monotonic()))
            os.write(pipe.fileno(), pcm[at : at + step])  # unbuffered, or a failed flush would be repeated at the end
        pipe.close()
    except BrokenPipeError:
        return  # the exit code of the client has the reason


def show(event: dict[str, Any]) -> None:
    """Print an event: on a terminal partials are redrawn in place, elsewhere each is a line."""
    final = event["type"] == "final"
    text = f"  {event['end']:5.1f} s  {event['text']}"
    if sys.stdout.isatty():
        print(f"\r\x1b[K{text}" if final else f"\r\x1b[K\x1b[2m{text}\x1b[0m", end="\n" if final else "", flush=True)
    else:
        print(text if final else f"{text} ...", flush=True)


def metric(base: str, name: str) -> float:
    """The sum of a metric over the models."""
    with urllib.request.urlopen(f"{base}/metrics", timeout=5) as page:
        lines = page.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


if __name__ == "__main__":
    sys.exit(main())
