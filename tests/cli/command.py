"""The command line as a user has it: a process, its output, its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
STREAMER = (sys.executable, "-W", "error", "-m", "streamer")
KEYS = ["type", "file", "text", "start", "end", "words"]
WORD_KEYS = ["word", "start", "end", "confidence"]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Without settings from outside; the checkout is on the path, so that a file's folder may be the current one."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("STREAMER_")}
    return kept | {"PYTHONPATH": str(ROOT)} | dict(extra or {})


def streamer(
    *arguments: str | Path, stdin: bytes = b"", cwd: Path | None = None, seconds: float = 120
) -> subprocess.CompletedProcess[bytes]:
    """``seconds``: after which it is killed."""
    command = [*STREAMER, *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, cwd=cwd, env=environment(), timeout=seconds)


def one_line(stderr: bytes) -> str:
    """The only line of an error: no traceback, no second line."""
    lines = stderr.decode().splitlines()
    assert len(lines) == 1, stderr.decode()
    return lines[0]


def events(stdout: bytes) -> list[dict[str, Any]]:
    """Lines of ``--json``, held to the promised keys in the promised order."""
    found = [json.loads(line) for line in stdout.decode().splitlines()]
    for event in found:
        assert list(event) == KEYS
        assert event["type"] in ("partial", "final")
        assert all(list(word) == WORD_KEYS for word in event["words"])
        assert event["start"] <= event["end"]
    return found


def finals(found: Sequence[dict[str, Any]]) -> list[str]:
    return [event["text"] for event in found if event["type"] == "final"]
