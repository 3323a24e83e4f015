"""Runs ``export`` and ``adopt`` in a separate process: they import PyTorch or onnx, which the daemon never does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from streamer.commands import CommandError

__all__ = ["ONNX", "run_tool"]

#: The folder that holds the packages ``export`` and ``streamer``: a checkout, or site-packages.
ROOT = Path(__file__).resolve().parents[2]
#: Signals that a fault of native code sends.
CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
#: Packages of the extra ``export``, and what installs them.
ONNX = dict.fromkeys(("onnx", "onnx_ir", "onnxscript"), "pip install 'streamer[export]'")


def run_tool(
    command: str, module: str, arguments: list[str], needs: Mapping[str, str], *, source: str, folder: Path
) -> int:
    """Run ``python -m MODULE ARGUMENTS`` with this Python; its exit code. ``needs``: package -> command to install it.
    ``source``: what the tool works on. ``folder``: where it writes.

    Raises :class:`CommandError` where a package is missing, or where a signal ended the tool.
    """
    missing = [name for name in needs if find_spec(name) is None]
    if missing:
        how = " and ".join(dict.fromkeys(needs[name] for name in missing))
        raise CommandError(f"{command} needs {', '.join(missing)}: {how} (for {sys.executable})", 2)
    where = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": where}
    with subprocess.Popen([sys.executable, "-P", "-m", module, *arguments], env=environment) as tool:
        code = tool.wait()
    if code >= 0:
        return code
    for left in folder.glob(f".*.{tool.pid}.*"):
        shutil.rmtree(left, ignore_errors=True)
    raise CommandError(_ended_text(command, -code, source, "torch" in needs))


def _ended_text(command: str, number: int, source: str, torch: bool) -> str:
    """The message for a tool that a signal ended."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if number in CRASHES:
        who = "PyTorch or the ONNX runtime" if torch else "the ONNX runtime"
        return (
            f"{command}: {who} crashed ({name}) on {source}: nothing was written. Some operators crash it in float16: "
            "try the model in float32 (model.float() before the export), or another release of onnxruntime"
        )
    if number == signal.SIGKILL:
        return (
            f"{command} was killed ({name}) while it worked on {source}, most often because memory ran out: nothing "
            "was written. Try a smaller --max-batch, or a machine with more memory"
        )
    return f"{command} was ended by {name} while it worked on {source}: nothing was written"
