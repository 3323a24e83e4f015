"""What is open is asked at once, as TOML that can be pasted; and what else the TOML can say of starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.adopt.build import adopt
from export.adopt.questions import OpenQuestionsError
from export.adopt.report import AdoptionError
from tests.export.adopt.support import Original, adoption, far, settings, together, written

OPEN = """(float[b, t, f] x, float[b, n] alpha, float[b, n] beta, float[3] gains)
    => (float[b, 1, f] y, float[b, n] left, float[b, n] right) {
    a = Add(alpha, beta)  left = Tanh(a)  right = Sin(a)
    g = ReduceMean<keepdims = 0>(gains)  m = ReduceMean<axes = [1], keepdims = 1>(x)  k = ReduceMean<keepdims = 0>(a)
    p = Mul(m, g)  y = Add(p, k)
}"""


def test_all_at_once_and_ready_to_paste(tmp_path: Path) -> None:
    source = written(tmp_path / "m.onnx", OPEN)
    with pytest.raises(OpenQuestionsError) as caught:
        adopt(source, tmp_path / "out.onnx")
    said = str(caught.value)
    assert "[state]" in said
    assert "[constants]" in said
    assert "gains float32 [3] has no value" in said
    assert "[dims]" in said or "[input]" in said
    pasted = settings(tmp_path, said[said.index("\n\n") :])
    assert set(pasted.state) == {"alpha", "beta"}
    assert pasted.constants == {"gains": 0.0}


def test_channels_first_is_never_taken_for_rows(tmp_path: Path) -> None:
    """Both axes are longer than one, and nothing in the graph tells them apart."""
    text = """(float[b, 6, 4] x, float[b, 6, 4] h) => (float[b, 6, 4] y, float[b, 6, 4] hn) {
        s = Add(x, h)  hn = Tanh(s)  y = Neg(hn)
    }"""
    source = written(tmp_path / "m.onnx", text)
    with pytest.raises(OpenQuestionsError, match=r"which axis is time, axis 1 \(6 steps\) or axis 2 \(4 steps\)"):
        adopt(source, tmp_path / "out.onnx")
    assert adoption(source, "[input]\ntime = 2\n").manifest.input.chunk_shape == (4, 6)


def test_sound_without_a_rate_is_asked_for(tmp_path: Path) -> None:
    text = """(float[b, 64] audio, float[b, 1] h) => (float[b, 1] y, float[b, 1] hn) {
        m = ReduceMax<axes = [1], keepdims = 1>(audio)  s = Add(m, h)  hn = Tanh(s)  y = Neg(hn)
    }"""
    with pytest.raises(OpenQuestionsError, match="by its name 64 samples of sound a call"):
        adopt(written(tmp_path / "m.onnx", text), tmp_path / "out.onnx")


STATE = """(float[b, 1, 3] x, float[b, 3] h) => (float[b, 1, 3] y, float[b, 3] hn) {
    ax = Constant<value = int64[1] {1}>()  r = Squeeze(x, ax)  s = Add(r, h)  hn = Tanh(s)  y = Unsqueeze(hn, ax)
}"""


@pytest.mark.parametrize("start", ["0.5", "[0.1, -0.2, 0.3]", '"h0.npy"'])
def test_a_state_that_does_not_begin_with_zeros(tmp_path: Path, start: str) -> None:
    """A number, a list, or a file beside the TOML, such as a start that was learnt."""
    first = {"0.5": [0.5] * 3, '"h0.npy"': [0.7, 0.8, -0.9]}.get(start, [0.1, -0.2, 0.3])
    np.save(tmp_path / "h0.npy", np.array([0.7, 0.8, -0.9], np.float32))
    source = written(tmp_path / "m.onnx", STATE)
    said = start.replace("h0.npy", str(tmp_path / "h0.npy"))
    adopted = adoption(source, f"[start]\nh = {said}\n")
    x = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    original, h, want = Original(source), np.array([first], np.float32), []
    for row in x:
        got = original(x=row[None, None], h=h)
        h = got["hn"]
        want.append(got["y"][0, 0])
    assert far(together(adopted.model, [x])[0]["y"], np.stack(want)) <= 1e-4


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ("[1.0, 2.0]", r"2 numbers, and the state is h float32 \[b, 3\]: give 3 numbers"),
        ('"wide.npy"', r"the array in .*wide\.npy is \[2, 2\], and the state is h float32 \[b, 3\]: give 3 numbers"),
        ('"missing.npy"', "can't read .*missing.npy: No such file"),
        ('"text.npy"', r".*text\.npy holds no array of numbers: write it with numpy.save"),
        ('"words.npy"', r".*words\.npy holds no array of numbers"),
        ('"both.npz"', r".*both\.npz holds no array of numbers"),
    ],
)
def test_a_start_that_does_not_fit(tmp_path: Path, start: str, said: str) -> None:
    source = written(tmp_path / "m.onnx", STATE)
    np.save(tmp_path / "wide.npy", np.zeros((2, 2)))
    np.save(tmp_path / "words.npy", np.array(["a", "b", "c"]))
    np.savez(tmp_path / "both.npz", a=np.zeros(3), b=np.zeros(3))
    (tmp_path / "text.npy").write_text("0 0 0", "utf-8")
    with pytest.raises(AdoptionError, match=rf"\[start\] h: {said}"):
        adopt(source, tmp_path / "out.onnx", settings(tmp_path, f"[start]\nh = {start}\n"))


def test_an_overlap_starts_with_one_number(tmp_path: Path) -> None:
    source = written(tmp_path / "m.onnx", STATE)
    with pytest.raises(AdoptionError, match=r"\[start\] x: the overlap of the stream starts with one number"):
        adopt(source, tmp_path / "out.onnx", settings(tmp_path, "[start]\nx = [1.0, 2.0]\n"))
