"""Fixtures that several rooms share."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.toys import toy_model

# A shell that starts the tests in the background has them ignore Ctrl-C, and every command that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny transcriber at 8 kHz with chunks of 40 ms (tests/toys.py)."""
    return toy_model(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def trap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, but its run fails on a sample of 32767."""
    return toy_model(tmp_path_factory.mktemp("trap"), name="trap", fails_on=32767)
