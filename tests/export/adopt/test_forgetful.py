"""A recurrence over time that is reset in every call is refused by its node's name, no other one is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from export.adopt.build import adopt
from export.adopt.report import AdoptionError
from export.adopt.settings import AdoptSettings
from tests.export.adopt.support import adoption, exported, settings, written


class Half(nn.Module):
    """One layer's state is carried, the other's is not."""

    def __init__(self) -> None:
        super().__init__()
        self.kept, self.lost, self.out = (
            nn.GRU(8, 16, batch_first=True),
            nn.LSTM(16, 16, batch_first=True),
            nn.Linear(16, 3),
        )

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        y, h = self.kept(x, h)
        return self.out(self.lost(y)[0]), h


class Bands(nn.Module):
    """Over 12 bands of each row with a start of zeros, over rows with a state."""

    def __init__(self) -> None:
        super().__init__()
        self.over, self.time, self.out = (
            nn.GRU(1, 4, batch_first=True),
            nn.GRU(48, 16, batch_first=True),
            nn.Linear(16, 3),
        )

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        b, t, f = x.shape
        y, h = self.time(self.over(x.reshape(b * t, f, 1))[0].reshape(b, t, 4 * f), h)
        return self.out(y), h


def refused(source: Path, said: AdoptSettings | None = None) -> str:
    with pytest.raises(AdoptionError, match="forgets everything from call to call") as caught:
        adopt(source, source.with_name("out.onnx"), said, max_batch=2, long_chunks=20)
    assert not source.with_name("out.onnx").exists()
    return str(caught.value)


@pytest.mark.parametrize("rows", [1, 5])
def test_one_of_two_layers(tmp_path: Path, rows: int) -> None:
    given = {"x": torch.randn(1, rows, 8), "h": torch.zeros(1, 1, 16)}
    source = exported(Half(), tmp_path / "m.onnx", given, ["y", "hn"])
    said = refused(source)
    assert "LSTM /lost/LSTM" in said
    assert "initial_h" in said
    assert "initial_c" in said
    assert "/kept/GRU" not in said
    # where that is what the host does, the line that the message gives is enough
    adopted = adoption(source, said[said.index("[recurrence]") :])
    assert adopted.pairs == {"h": "hn"}


@pytest.mark.parametrize("rows", [1, 5])
def test_over_bands_it_may_begin_with_nothing(tmp_path: Path, rows: int) -> None:
    given = {"x": torch.randn(1, rows, 12), "h": torch.zeros(1, 1, 16)}
    source = exported(Bands(), tmp_path / "m.onnx", given, ["y", "hn"])
    assert adoption(source, "[input]\ntime = 1\n").pairs == {"h": "hn"}


def test_a_scan_that_begins_with_a_constant(tmp_path: Path) -> None:
    source = written(
        tmp_path / "m.onnx",
        """(float[3, 1] x, float[1, 1] h) => (float[3, 1] y, float[1, 1] hn) {
        zero = Constant<value = float[1] {0}>()
        last, all = Scan<num_scan_inputs = 1, body = b (float[1] s, float[1] r) => (float[1] t, float[1] u)
            { a = Add(s, r)  t = Tanh(a)  u = Identity(t) }>(zero, x)
        m = ReduceMean<axes = [0], keepdims = 1>(all)  k = Add(m, h)  hn = Tanh(k)  y = Add(all, h)
        }""",
    )
    said = refused(source, settings(tmp_path, "[input]\nbatch = 1\ntime = 0\n"))
    assert "Scan" in said
    assert "a constant as its state s" in said


class Both(nn.Module):
    """Both directions over the rows of a call. ``carried``: the backward one starts from a state, too."""

    def __init__(self, kind: type[nn.RNNBase], carried: bool) -> None:
        super().__init__()
        self.layer, self.out = kind(8, 16, bidirectional=True, batch_first=True), nn.Linear(32, 3)
        self.carried = carried

    def forward(self, x: Tensor, *h: Tensor) -> tuple[Tensor, ...]:
        start = h if self.carried else tuple(torch.cat([one, torch.zeros_like(one)]) for one in h)
        y, end = self.layer(x, start if len(h) > 1 else start[0])
        ends = end if len(h) > 1 else (end,)
        return self.out(y), *(ends if self.carried else (one[:1] for one in ends))


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN])
def test_a_backward_direction_has_no_state(tmp_path: Path, kind: type[nn.RNNBase], rows: int) -> None:
    names = ["h0", "c0"][: 1 + (kind is nn.LSTM)]
    given = {"x": torch.randn(1, rows, 8), **{name: torch.zeros(2, 1, 16) for name in names}}
    source = exported(Both(kind, True), tmp_path / "m.onnx", given, ["y", *(f"{name[0]}n" for name in names)])
    with pytest.raises(AdoptionError, match=r"has a backward direction, which starts from the state h0"):
        adopt(source, tmp_path / "out.onnx", max_batch=2, long_chunks=20)
    assert not (tmp_path / "out.onnx").exists()


def test_a_backward_direction_may_begin_with_nothing(tmp_path: Path) -> None:
    """It hears the rows of a call; the other direction goes on."""
    given = {"x": torch.randn(1, 4, 8), "h0": torch.zeros(1, 1, 16)}
    source = exported(Both(nn.GRU, False), tmp_path / "m.onnx", given, ["y", "hn"])
    assert adoption(source, "[input]\ntime = 1\nchunk = 4\n").pairs == {"h0": "hn"}


def test_a_node_that_is_only_backward(tmp_path: Path) -> None:
    source = written(
        tmp_path / "m.onnx",
        """(float[4, 1, 2] x, float[1, 1, 2] h0) => (float[4, 1, 1, 2] y, float[1, 1, 2] hn) {
        w = Constant<value = float[1, 2, 2] {1, 0, 0, 1}>()
        y, hn = RNN<direction = "reverse", hidden_size = 2>(x, w, w, , , h0)
        }""",
    )
    with pytest.raises(AdoptionError, match=r"RNN y has a backward direction, which starts from the state h0"):
        adopt(source, tmp_path / "out.onnx", settings(tmp_path, "[input]\nbatch = 1\ntime = 0\n"))
