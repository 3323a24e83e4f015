"""Fixtures that several rooms share."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.toys import toy_model

# A shell that starts the tests in the background has them ignore Ctrl-C, and every command that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="the long tests, too: trainings, the zoo, foreign graphs")
    parser.addoption("--soak", action="store_true", help="those, too, that take a minute or more each")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long tests run with ``--all``, soaks with ``--soak``, and both where somebody names their file."""
    kinds = [kind for kind, option in (("long", "--all"), ("soak", "--soak")) if not config.getoption(option)]
    named = {(config.invocation_params.dir / argument.partition("::")[0]).resolve() for argument in config.args}
    marked = [item for item in items if any(item.get_closest_marker(kind) for kind in kinds)]
    left_out = [item for item in marked if item.path not in named]
    if left_out:
        items[:] = [item for item in items if item not in set(left_out)]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny transcriber at 8 kHz with chunks of 40 ms (tests/toys.py)."""
    return toy_model(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def trap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, but its run fails on a sample of 32767."""
    return toy_model(tmp_path_factory.mktemp("trap"), name="trap", fails_on=32767)
