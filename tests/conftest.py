"""Fixtures that several rooms share."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.toys import toy_model

#: Marks of tests that are left out without the option.
OPTIONS = {"long": "--all", "soak": "--soak"}
#: A file's own marks, for all of its tests.
MARKED = re.compile(r"^pytestmark = (.*)$", re.MULTILINE)

# A shell that starts the tests in the background has them ignore Ctrl-C, and every command that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Whether a random example is made in time says how busy the machine is, and no more.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="the long tests, too: trainings, the zoo, foreign graphs")
    parser.addoption("--soak", action="store_true", help="those, too, that take a minute or more each")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A file all of whose tests are left out is not even imported: every process of the tests would import what it
    trains and judges with."""
    if not collection_path.name.startswith("test_") or collection_path.suffix != ".py":
        return None
    if collection_path in _named(config):
        return None
    marked = MARKED.search(collection_path.read_text("utf-8"))
    left_out = (kind for kind, option in OPTIONS.items() if not config.getoption(option))
    return (marked is not None and any(f"pytest.mark.{kind}" in marked[1] for kind in left_out)) or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long tests run with ``--all``, soaks with ``--soak``, and both where somebody names their file."""
    kinds = [kind for kind, option in OPTIONS.items() if not config.getoption(option)]
    named = _named(config)
    marked = [item for item in items if any(item.get_closest_marker(kind) for kind in kinds)]
    left_out = [item for item in marked if item.path not in named]
    if left_out:
        items[:] = [item for item in items if item not in set(left_out)]
        config.hook.pytest_deselected(items=left_out)


def _named(config: pytest.Config) -> set[Path]:
    """Files, and folders, that the command line names."""
    return {(config.invocation_params.dir / argument.partition("::")[0]).resolve() for argument in config.args}


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny transcriber at 8 kHz with chunks of 40 ms (tests/toys.py)."""
    return toy_model(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def trap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, but its run fails on a sample of 32767."""
    return toy_model(tmp_path_factory.mktemp("trap"), name="trap", fails_on=32767)
