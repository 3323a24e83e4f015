"""Tab in real shells: the script that ``streamer completion`` prints, sourced in them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import STREAMER, environment, one_line, streamer
from tests.cli.terminal import Terminal

#: How each shell is started without anybody's settings, and told of the script.
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source <(streamer completion bash)"),
    "zsh": (["zsh", "-f", "-i"], "autoload -U compinit; compinit -u -D; source <(streamer completion zsh)"),
    "fish": (["fish", "--no-config", "-i"], "streamer completion fish | source"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file in it, and a ``bin`` in which ``streamer`` is this checkout's."""
    script = tmp_path / "bin" / "streamer"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\nexec " + " ".join(f"'{part}'" for part in STREAMER) + ' "$@"\n')
    script.chmod(0o755)
    (tmp_path / "talk-of-today.wav").touch()
    return tmp_path


@contextlib.contextmanager
def shell(name: str, folder: Path) -> Iterator[Terminal]:
    command, told = SHELLS[name]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{name} is not installed")
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    started = Terminal(command, 100, 24, PATH=path, HOME=str(folder), PS1="> ", XDG_DATA_HOME=str(folder))
    try:
        # the prompt of a shell comes when it listens; the word in two parts is not seen before it is said
        started.type(f"cd '{folder}'; {told}; echo rea''dy\n")
        started.shows("ready\n")
        yield started
    finally:
        started.close()


@pytest.mark.long
@pytest.mark.parametrize("name", SHELLS)
def test_tab_completes_commands_options_and_models(name: str, folder: Path) -> None:
    with shell(name, folder) as seen:
        for typed, whole in (
            ("streamer forec", "streamer forecast"),
            ("streamer top --ev", "streamer top --every"),
            ("streamer check dig", "streamer check digits"),
            ("streamer sessions ev", "streamer sessions evict"),
            ("streamer completion fi", "streamer completion fish"),
        ):
            seen.type(f"{typed}\t")
            seen.shows(whole)
            seen.type("\x15")  # the line is taken back


@pytest.mark.parametrize("name", SHELLS)
def test_tab_completes_files_where_no_name_fits(name: str, folder: Path) -> None:
    with shell(name, folder) as seen:
        seen.type("streamer transcribe talk-\t")
        seen.shows("transcribe talk-of-today.wav")


@pytest.mark.parametrize("name", SHELLS)
def test_the_script_alone_is_printed(name: str) -> None:
    done = streamer("completion", name)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"_STREAMER_COMPLETE" in done.stdout


def test_another_shell_is_refused() -> None:
    done = streamer("completion", "tcsh")
    assert "'bash', 'zsh', 'fish'" in one_line(done.stderr)
    assert done.returncode == 2


def test_every_command_and_option_is_known() -> None:
    """As bash asks: all commands that are shown, and a command's own options."""

    def words(*line: str) -> set[str]:
        env = environment(
            {"_STREAMER_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(line), "COMP_CWORD": str(len(line) - 1)}
        )
        done = subprocess.run(STREAMER, capture_output=True, env=env, timeout=60)
        assert done.stderr == b""
        return set(done.stdout.decode().split())

    assert {"serve", "top", "completion", "sessions", "token"} <= words("streamer", "''")
    assert {"--once", "--json", "--every", "--url", "--token", "--ca"} <= words("streamer", "top", "--")
    assert words("streamer", "listen", "--text", "w") == {"written"}
