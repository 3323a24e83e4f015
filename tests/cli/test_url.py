"""The same commands against a daemon: the same events as in process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import events, one_line, streamer
from tests.cli.conftest import RATE, utterances
from tests.cli.serving import serving


@pytest.fixture(scope="module")
def daemon(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("daemon"), toy) as url:
        yield url


@pytest.mark.long
def test_a_file(daemon: str, toy: Path, recording: Path) -> None:
    local = streamer("transcribe", "--json", "--model", toy, recording)
    remote = streamer("transcribe", "--json", "--model", "toy", "--url", daemon, recording)
    assert (remote.stderr, remote.returncode) == (b"", 0)
    assert events(remote.stdout) == events(local.stdout)


def test_standard_input(daemon: str) -> None:
    url = daemon.removeprefix("ws://")  # as people write it
    pcm = utterances("AB", "BBA").tobytes()
    done = streamer("transcribe", "-", "--rate", str(RATE), "--url", url, stdin=pcm)
    assert (done.stdout, done.stderr, done.returncode) == (b"AB\nBBA\n", b"", 0)


def test_an_unknown_model(daemon: str, recording: Path) -> None:
    done = streamer("transcribe", "--model", "nothing", "--url", daemon, recording)
    assert "no model 'nothing'" in one_line(done.stderr)
    assert done.returncode == 2


def test_a_rate_that_the_model_cannot_use(daemon: str) -> None:
    done = streamer("transcribe", "-", "--rate", "4000", "--url", daemon, stdin=bytes(800))
    assert "4000" in one_line(done.stderr)
    assert done.returncode == 2
