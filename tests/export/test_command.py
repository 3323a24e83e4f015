"""``streamer export FILE.py:FUNCTION``: what a function may return, whose weights fit, and what is said where not."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from export.command import load_weights, made, main
from export.forward import ExportError
from streamer.commands import CommandError
from streamer.commands.tools import run_tool

SOURCE = """
import torch
from helper import WIDTH, helps
from torch.nn import GRUCell

def alone():
    return torch.nn.GRUCell(4, WIDTH)

def three():
    return alone(), torch.zeros(1, 4), torch.zeros(1, WIDTH)

def named():
    return {"module": alone(), "example": torch.zeros(1, 4), "states": torch.zeros(1, WIDTH), "licence": "MIT"}

def broken():
    raise RuntimeError("no such dataset")

def nothing():
    return None
"""


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "helper.py").write_text("WIDTH = 8\ndef helps(): pass\n", "utf-8")
    (tmp_path / "export.py").write_text(SOURCE, "utf-8")  # named as the package is
    return str(tmp_path / "export.py")


def test_what_a_function_may_return(source: str) -> None:
    assert list(made(f"{source}:three")) == ["module", "example", "states"]
    assert made(f"{source}:named")["licence"] == "MIT"


@pytest.mark.parametrize(
    ("function", "why"),
    [
        ("alone", "module alone.*return model, torch.zeros"),
        ("nothing", r"returned NoneType: return \(module, example, states\)"),
        ("broken", "RuntimeError: no such dataset"),
        ("missing", "no function missing; there are: alone, broken, named, nothing, three$"),
    ],
)
def test_what_a_function_may_not(source: str, function: str, why: str) -> None:
    with pytest.raises(ExportError, match=why):
        made(f"{source}:{function}")


@pytest.mark.parametrize("name", ["nowhere.py", "my_module", "my_module:", "no.such.module:make"])
def test_what_is_no_function(name: str) -> None:
    with pytest.raises(ExportError):
        made(name if ":" in name else f"{name}:make")


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "model_state_dict", "parallel", "lightning"])
def test_weights_as_trainers_save_them(wrap: str, tmp_path: Path) -> None:
    trained, fresh = nn.GRUCell(4, 8), nn.GRUCell(4, 8)
    weights = trained.state_dict()
    saved = {
        "plain": weights,
        "state_dict": {"epoch": 3, "state_dict": weights},
        "model_state_dict": {"model_state_dict": weights},
        "parallel": {f"module.{name}": tensor for name, tensor in weights.items()},
        "lightning": {"state_dict": {f"model.{name}": tensor for name, tensor in weights.items()}},
    }
    torch.save(saved[wrap], tmp_path / "net.pt")
    load_weights(fresh, tmp_path / "net.pt")
    assert torch.equal(fresh.weight_ih, trained.weight_ih)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_in_safetensors(prefix: str, tmp_path: Path) -> None:
    trained, fresh = nn.GRUCell(4, 8), nn.GRUCell(4, 8)
    save_file(
        {f"{prefix}{name}": tensor for name, tensor in trained.state_dict().items()}, tmp_path / "net.safetensors"
    )
    load_weights(fresh, tmp_path / "net.safetensors")
    assert torch.equal(fresh.weight_ih, trained.weight_ih)


class Tied(nn.Module):
    """The output layer has the embedding's weights, as language models do."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight


def test_tied_weights_stand_in_safetensors_once(tmp_path: Path) -> None:
    trained, fresh = Tied(), Tied()
    save_model(trained, str(tmp_path / "net.safetensors"))
    load_weights(fresh, tmp_path / "net.safetensors")
    assert torch.equal(fresh.head.weight, trained.embedding.weight)
    assert fresh.head.weight is fresh.embedding.weight


def test_safetensors_that_do_not_fit(tmp_path: Path) -> None:
    save_file(nn.GRUCell(4, 9).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(ExportError, match="of another module: size mismatch"):
        load_weights(nn.GRUCell(4, 8), tmp_path / "other.safetensors")
    torch.save(nn.GRUCell(4, 8).state_dict(), tmp_path / "pickled.safetensors")
    with pytest.raises(ExportError, match="is not a safetensors file"):
        load_weights(nn.GRUCell(4, 8), tmp_path / "pickled.safetensors")
    with pytest.raises(ExportError, match="no file"):
        load_weights(nn.GRUCell(4, 8), tmp_path / "nowhere.safetensors")


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    torch.save(nn.GRUCell(4, 9).state_dict(), tmp_path / "other.pt")
    with pytest.raises(ExportError, match="of another module: size mismatch"):
        load_weights(nn.GRUCell(4, 8), tmp_path / "other.pt")
    torch.save(nn.GRUCell(4, 8), tmp_path / "whole.pt")
    with pytest.raises(ExportError, match=r"save model\.state_dict\(\)"):
        load_weights(nn.GRUCell(4, 8), tmp_path / "whole.pt")
    torch.save({"epoch": 3}, tmp_path / "no.pt")
    with pytest.raises(ExportError, match="no state_dict"):
        load_weights(nn.GRUCell(4, 8), tmp_path / "no.pt")
    with pytest.raises(ExportError, match="no file"):
        load_weights(nn.GRUCell(4, 8), tmp_path / "nowhere.pt")


def test_an_error_is_told_on_standard_error(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"{source}:alone", "-o", "x.onnx"]) == 2
    assert capsys.readouterr().err.startswith("export: ")


def test_without_torch_it_says_what_to_install() -> None:
    with pytest.raises(CommandError, match=r"export needs no_such_torch: pip install it \(for .*python"):
        run_tool(
            "export",
            "export.command",
            [],
            {"no_such_torch": "pip install it", "json": "nothing"},
            source="m.py:make",
            folder=Path(),
        )


#: Begins a draft as the tools do, and ends by the signal that it gets.
ENDED = """
import os, sys
from pathlib import Path
from export.file import draft_of

with draft_of(Path(sys.argv[1])) as draft:
    draft.write_bytes(b"half")
    os.kill(os.getpid(), int(sys.argv[2]))
"""


@pytest.mark.parametrize(
    ("number", "needs", "said"),
    [
        (signal.SIGSEGV, {}, r"adopt: the ONNX runtime crashed \(SIGSEGV\) on m\.onnx: .*float32"),
        (signal.SIGABRT, {"torch": ""}, r"adopt: PyTorch or the ONNX runtime crashed \(SIGABRT\) on m\.onnx"),
        (signal.SIGKILL, {}, r"adopt was killed \(SIGKILL\) while it worked on m\.onnx, .*memory"),
        (signal.SIGTERM, {}, r"adopt was ended by SIGTERM while it worked on m\.onnx"),
    ],
)
def test_a_tool_that_a_signal_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, needs: dict[str, str], said: str
) -> None:
    """It says so, and its draft goes; that of another process stays."""
    (tmp_path / "ended.py").write_text(ENDED, "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    folder = tmp_path / "out"
    (folder / ".m.onnx.1.other").mkdir(parents=True)
    arguments = [str(folder / "m.onnx"), str(int(number))]
    with pytest.raises(CommandError, match=said) as caught:
        run_tool("adopt", "ended", arguments, needs, source="m.onnx", folder=folder)
    assert caught.value.code == 1
    assert [path.name for path in folder.iterdir()] == [".m.onnx.1.other"]
