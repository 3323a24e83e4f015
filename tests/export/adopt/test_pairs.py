"""Which output a state comes back as: by the graph, by the names that people give, by shape; else it is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.adopt.flow import GraphFlow
from export.adopt.questions import OpenQuestionsError
from export.adopt.read import read
from export.adopt.roles import Port, Roles, assign
from export.adopt.settings import AdoptSettings
from tests.export.adopt.support import written


def roles(inputs: dict[str, int], outputs: dict[str, int]) -> Roles:
    """Tensors [1, size] by their names alone."""
    ports = [[Port(name, "float32", (1, size)) for name, size in one.items()] for one in (inputs, outputs)]
    return assign(*ports, AdoptSettings())


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        (("h0", "c0"), ("hn", "cn")),
        (("h_0", "c_0"), ("h_n", "c_n")),
        (("h0", "c0"), ("h1", "c1")),
        (("h_t", "c_t"), ("h_t1", "c_t1")),
        (("h_init", "c_init"), ("h_final", "c_final")),
        (("h", "c"), ("hN", "cN")),
        (("h0", "c0"), ("hN", "cN")),
        (("h_in", "c_in"), ("h_out", "c_out")),
        (("prev_h", "prev_c"), ("new_h", "new_c")),
        (("h_prev", "c_prev"), ("h_last", "c_last")),
        (("state_0", "state_1"), ("new_state_0", "new_state_1")),
        (("cache_in_0", "cache_in_1"), ("cache_out_0", "cache_out_1")),
        (("h0", "h1"), ("h0_out", "h1_out")),
    ],
)
def test_names(before: tuple[str, ...], behind: tuple[str, ...]) -> None:
    found = roles({"x": 3, **dict.fromkeys(before, 8)}, {"y": 2, **dict.fromkeys(behind, 8)})
    assert (found.stream, found.results) == ("x", ["y"])
    assert found.pairs == dict(zip(before, behind, strict=True))
    assert set(found.how.values()) == {"name"}


def test_the_stream_is_what_has_no_way_back() -> None:
    found = roles({"onnx::Gemm_1": 8, "onnx::Gemm_0": 3}, {"27": 8, "28": 2})
    assert (found.stream, found.pairs) == ("onnx::Gemm_0", {"onnx::Gemm_1": "27"})


def graph(tmp_path: Path, body: str, states: tuple[str, str] = ("alpha", "beta")) -> Roles:
    source = written(
        tmp_path / "m.onnx",
        f"(float[1, 4] x, float[1, 4] {states[0]}, float[1, 4] {states[1]}) => "
        f"(float[1, 4] y, float[1, 4] left, float[1, 4] right) {{ {body} }}",
    )
    foreign = read(source)
    return assign(foreign.inputs, foreign.outputs, AdoptSettings(), GraphFlow(foreign.model()))


def test_by_the_arithmetic(tmp_path: Path) -> None:
    """A cell that is written out: the one state goes on by a sum, the other through everything."""
    body = "s = Add(x, alpha) g = Sigmoid(s) k = Mul(g, beta) right = Add(k, x) t = Tanh(right) left = Mul(g, t)"
    body += " y = Neg(left)"
    found = graph(tmp_path, body)
    assert found.pairs == {"alpha": "left", "beta": "right"}
    assert set(found.how.values()) == {"arithmetic"}


@pytest.mark.parametrize(
    "body",
    [
        # a delay line: the old value of one state is the new one of the other
        "left = Identity(x) right = Identity(alpha) y = Add(alpha, beta)",
        # a filter of two taps, in the form in which both states are in all that is new
        "a = Add(x, alpha) left = Add(a, beta) right = Identity(alpha) y = Neg(left)",
        "a = Add(x, alpha) b = Add(a, beta) left = Tanh(b) right = Sin(b) y = Neg(left)",
    ],
)
def test_what_the_arithmetic_does_not_tell_is_asked(tmp_path: Path, body: str) -> None:
    with pytest.raises(OpenQuestionsError) as caught:
        graph(tmp_path, body)
    assert "[state]" in str(caught.value)
