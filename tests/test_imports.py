"""The daemon stands alone: no module of `streamer` needs torch, onnx or the rest of the checkout."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest

import streamer

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(module.name for module in pkgutil.walk_packages(streamer.__path__, "streamer."))
FOREIGN = (
    "torch",
    "torchmetrics",
    "onnx",
    "onnxscript",
    "lightning",
    "jiwer",
    "matplotlib",
    "models",
    "export",
    "bench",
)

BLOCKED = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {FOREIGN!r}:
            raise ImportError(f"blocked: {{name}}")
sys.meta_path.insert(0, Block())
try:
    import torch
except ImportError as error:
    assert "blocked" in str(error), error
else:
    raise SystemExit("the block does not work")
import importlib
for name in {MODULES!r}:
    if name != "streamer.__main__":
        importlib.import_module(name)
print(sorted(m for m in sys.modules if m.partition(".")[0] in {FOREIGN!r}))
"""


def test_every_module_imports_without_the_training_world(tmp_path: Path) -> None:
    assert len(MODULES) > 30
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("name", [name for name in MODULES if name != "streamer.__main__"])
def test_all_names_what_there_is(name: str) -> None:
    module = importlib.import_module(name)
    listed = getattr(module, "__all__", [])
    assert sorted(set(listed)) == sorted(listed), "named twice"
    assert [entry for entry in listed if not hasattr(module, entry)] == []


def test_help_and_version_load_nothing_heavy() -> None:
    code = (
        "import sys, contextlib, io, streamer.cli as cli\n"
        "sys.argv = ['streamer', 'transcribe', '--help']\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit): cli.main()\n"
        "heavy = {'numpy', 'onnxruntime', 'soundfile', 'sounddevice', 'uvicorn', 'websockets'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_the_contracts_of_import_direction_hold() -> None:
    """import-linter reads every import statement, also those inside functions that no test runs."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(contracts)} kept, 0 broken" in done.stdout


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Imports for the type checker and those inside functions count, too."""
    graph = grimp.build_graph("streamer", "models", "export", "bench", cache_dir=None)
    circles = []
    for name in sorted(graph.modules):
        for imported in graph.find_modules_directly_imported_by(name):
            chain = graph.find_shortest_chain(imported, name)
            if chain is not None and name == min(chain):
                circles.append(" -> ".join([name, *chain]))
    assert circles == []
