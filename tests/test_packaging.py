"""The wheel, built from what is committed or about to be, and installed into an environment of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.toys import toy_model

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "CHANGELOG.md", "LICENSE")
TREES = ("streamer", "models", "export", "bench", "tests")


POLICY = """
import torch

def make_model():
    class Policy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = torch.nn.GRUCell(45, 8)

        def forward(self, obs, hidden):
            hidden = self.cell(obs, hidden)
            return hidden.tanh(), hidden

    return Policy(), torch.zeros(1, 45), torch.zeros(1, 8)
"""


def _run(*command: str | Path, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=cwd, env=environment, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout is built, so that no build folder is left in it. A toy joins the shipped models."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in PARTS:
        shutil.copy(ROOT / name, copy)
    for name in TREES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "models" / "pretrained").mkdir(exist_ok=True)
    toy_model(copy / "models" / "pretrained" / "toy.onnx")
    (copy / "models" / "pretrained" / "toy.md").write_text("# toy\n", "utf-8")
    stale = copy / "build" / "lib" / "streamer" / "pretrained"
    stale.mkdir(parents=True)
    (stale / "older.onnx").write_bytes(b"left by an earlier build")
    out = copy / "dist"
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    _run(*pip, "-w", out, ".", cwd=copy)
    (path,) = out.glob("*.whl")
    return path


def test_the_wheel_holds_the_daemon_its_models_and_the_exporter(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    outside = [n for n in names if not n.startswith(("streamer/", "streamer-", "export/"))]
    assert outside == []
    modules = {str(p.relative_to(ROOT)) for tree in ("streamer", "export") for p in (ROOT / tree).rglob("*.py")}
    assert {n for n in names if n.endswith(".py")} == modules
    shipped = {f"streamer/pretrained/{p.name}" for p in (ROOT / "models" / "pretrained").glob("*.onnx")}
    packed = {n for n in names if n.startswith("streamer/pretrained/") and n.endswith(".onnx")}
    assert packed == shipped | {"streamer/pretrained/toy.onnx"}
    assert "streamer/pretrained/toy.md" in names
    pages = {str(p.relative_to(ROOT)) for p in (ROOT / "streamer" / "serve" / "pages" / "static").iterdir()}
    assert {n for n in names if n.startswith("streamer/serve/pages/static/")} == pages


@pytest.mark.timeout(900)
def test_the_wheel_works_where_there_is_no_checkout(wheel: Path, tmp_path: Path) -> None:
    """Only the dependencies are shared with the environment of the tests; the package itself comes from the wheel."""
    venv.create(tmp_path / "venv", with_pip=False, system_site_packages=False)
    python = tmp_path / "venv" / "bin" / "python"
    into = _run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip()
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index")
    _run(*pip, wheel, cwd=tmp_path)
    # dependencies, without the links that an editable install has put beside them
    theirs = Path(_run(sys.executable, "-c", "import numpy; print(numpy.__path__[0])", cwd=tmp_path).strip()).parent
    for entry in theirs.iterdir():
        if entry.suffix != ".pth" and not entry.name.startswith(("streamer", "__editable__")):
            target = Path(into) / entry.name
            if not target.exists():
                target.symlink_to(entry)
    where = _run(python, "-c", "import streamer; print(streamer.__file__)", cwd=tmp_path).strip()
    assert where.startswith(into)
    program = python.with_name("streamer")
    listed = json.loads(_run(program, "models", "--json", cwd=tmp_path))
    assert "toy" in [row["name"] for row in listed]
    assert _run(program, "--version", cwd=tmp_path).split()[1] != "0.0.0"
    _run(python, "-c", "import importlib.util as u; assert u.find_spec('models') is None", cwd=tmp_path)
    # a module of one's own, with the PyTorch that is there
    (tmp_path / "my_module.py").write_text(POLICY, "utf-8")
    said = _run(program, "export", "my_module.py:make_model", "-o", "policy.onnx", "--max-batch", "2", cwd=tmp_path)
    assert "input obs float32 [1, 45]: 1 step of 45 values" in said
    assert "keeps its laws" in _run(program, "check", "policy.onnx", cwd=tmp_path)
