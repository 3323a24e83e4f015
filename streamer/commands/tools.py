"""Runs ``export`` and ``adopt`` in a separate process: they import PyTorch or onnx, which the daemon never does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from streamer.commands import CommandError

__all__ = ["ONNX", "run_tool"]

#: The folder that holds the packages ``export`` and ``streamer``: a checkout, or site-packages.
ROOT = Path(__file__).resolve().parents[2]
#: Packages of the extra ``export``, and what installs them.
ONNX = dict.fromkeys(("onnx", "onnx_ir", "onnxscript"), "pip install 'streamer[export]'")


def run_tool(command: str, module: str, arguments: list[str], needs: Mapping[str, str]) -> int:
    """Run ``python -m MODULE ARGUMENTS`` with this Python; its exit code. ``needs``: package -> command to install it.

    Raises :class:`CommandError` where one is missing.
    """
    missing = [name for name in needs if find_spec(name) is None]
    if missing:
        how = " and ".join(dict.fromkeys(needs[name] for name in missing))
        raise CommandError(f"{command} needs {', '.join(missing)}: {how} (for {sys.executable})", 2)
    where = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run([sys.executable, "-P", "-m", module, *arguments], env={**os.environ, "PYTHONPATH": where})
    return done.returncode
