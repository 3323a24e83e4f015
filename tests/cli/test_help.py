"""Every command explains itself, and errors of usage are one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import streamer as streamer_package
from streamer.cli import EPILOG
from tests.cli.command import ROOT, environment, one_line, streamer

COMMANDS = (
    *("serve", "transcribe", "listen", "forecast", "generate", "classify", "enhance"),
    *("run", "adopt", "export", "check", "models", "token", "sign", "top", "completion"),
)


def test_the_commands_are_listed() -> None:
    for done in (streamer("--help"), streamer("-h")):
        assert done.returncode == 0
        assert [c for c in COMMANDS if f"\n  {c} " not in done.stdout.decode()] == []
        assert "..." not in done.stdout.decode().partition("Commands:")[2]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command: str) -> None:
    done = streamer(command, "--help")
    text = done.stdout.decode()
    assert (done.stderr, done.returncode) == (b"", 0)
    examples = [line for line in EPILOG[command].splitlines() if line.startswith("  $ ")]
    assert examples
    assert [line for line in examples if line not in text] == []
    assert f"streamer {command}" in examples[0]


def test_version() -> None:
    done = streamer("--version")
    assert done.stdout.decode() == f"streamer {streamer_package.__version__}\n"
    assert done.returncode == 0


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["--nonsense"], ["listen", "--nonsense"], ["listen", "--seconds", "x"]]
)
def test_bad_usage(arguments: list[str]) -> None:
    done = streamer(*arguments)
    assert "--help shows how" in one_line(done.stderr)
    assert (done.stdout, done.returncode) == (b"", 2)


@pytest.mark.long
@pytest.mark.parametrize("arguments", [["--list-devices"], []])
def test_a_missing_portaudio_is_one_line_that_says_what_to_install(arguments: list[str], toy: Path) -> None:
    """As sounddevice finds it on a machine without the library; nothing else needs it."""
    code = "import ctypes.util; ctypes.util.find_library = lambda name: None; from streamer.cli import main; main()"
    command = [sys.executable, "-c", code]
    done = subprocess.run([*command, "listen", "--model", str(toy), *arguments], capture_output=True, env=environment())
    assert "sudo apt install libportaudio2" in one_line(done.stderr)
    assert done.returncode == 2
    assert subprocess.run([*command, "models"], capture_output=True, env=environment()).returncode == 0


#: sounddevice on a machine without a sound card.
NO_CARD = """
import sys, types
class PortAudioError(Exception): ...
def query_devices(device=None, kind=None):
    if kind is not None:
        raise PortAudioError("Error querying device -1")
    return []
sys.modules["sounddevice"] = types.SimpleNamespace(
    PortAudioError=PortAudioError, query_devices=query_devices, default=types.SimpleNamespace(device=[-1, -1])
)
from streamer.cli import main
main()
"""


@pytest.mark.parametrize(
    "arguments", [["--list-devices"], ["--model", "digits"], ["--model", "digits", "--device", "x"]]
)
def test_a_machine_without_a_microphone_says_so(arguments: list[str]) -> None:
    command = [sys.executable, "-c", NO_CARD, "listen", *arguments]
    done = subprocess.run(command, capture_output=True, env=environment(), cwd=ROOT)
    assert one_line(done.stderr).startswith("streamer: no microphone was found: plug one in, or give a recording to ")
    assert (done.stdout, done.returncode) == (b"", 1)


def test_no_command_shows_the_help() -> None:
    done = streamer()
    assert done.returncode == 2
    assert "Commands:" in done.stderr.decode()


def test_debug_shows_where() -> None:
    plain = streamer("transcribe", "--model", "nothing", "x.wav")
    assert "Traceback" not in plain.stderr.decode()
    assert "Traceback" in streamer("--debug", "transcribe", "--model", "nothing", "x.wav").stderr.decode()
