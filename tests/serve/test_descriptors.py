"""A limit of open files that is too low is raised as far as it may be, and said."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import logging, resource, sys
logging.basicConfig(format="%(message)s", stream=sys.stdout)
from streamer.settings import Settings
from streamer.serve.descriptors import raise_file_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
print(raise_file_limit(Settings(max_connections=300, max_http_connections=72)))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "found", "said"), [(100, 200, 200, True), (100, 600, 500, False), (550, 600, 550, False)]
)
def test_the_limit(soft: int, hard: int, found: int, said: bool) -> None:
    command = [sys.executable, "-c", CODE, str(soft), str(hard)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == str(found)
    assert ("ulimit -n" in out and "max_connections" in out) is said
