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


def graph(tmp_path: Path, body: str, states: tuple[str, ...] = ("alpha", "beta"), result: str = "1, 1, 4") -> Roles:
    """``result``: the shape of y. States and the other outputs are [1, 4]."""
    given = ", ".join(f"float[1, 4] {state}" for state in states)
    source = written(
        tmp_path / "m.onnx",
        f"(float[1, 4] x, {given}) => (float[{result}] y, float[1, 4] left"
        f"{', float[1, 4] right' if len(states) > 1 else ''}) "
        f"{{ ax = Constant<value = int64[1] {{1}}>() {body} }}",
    )
    foreign = read(source)
    return assign(foreign.inputs, foreign.outputs, AdoptSettings(), GraphFlow(foreign.model()))


CELL = "s = Add(x, alpha) g = Sigmoid(s) k = Mul(g, beta) right = Add(k, x) t = Tanh(right) left = Mul(g, t)"


def test_by_the_arithmetic_and_the_order(tmp_path: Path) -> None:
    """A cell that is written out: the one state goes on by a sum, the other through everything."""
    found = graph(tmp_path, f"{CELL} y = Unsqueeze(left, ax)")
    assert found.pairs == {"alpha": "left", "beta": "right"}
    assert set(found.how.values()) == {"arithmetic"}


def test_states_that_do_not_mix(tmp_path: Path) -> None:
    """Two moving means, and their difference."""
    body = "left = Add(x, alpha) b = Mul(beta, beta) right = Add(b, x) d = Sub(left, right) y = Unsqueeze(d, ax)"
    assert graph(tmp_path, body).pairs == {"alpha": "left", "beta": "right"}


@pytest.mark.parametrize(
    "body",
    [
        # a delay line: the old value of one state is the new one of the other
        "left = Identity(x) right = Identity(alpha) s = Add(alpha, beta)",
        # a filter of two taps, in the form in which both states are in all that is new
        "a = Add(x, alpha) left = Add(a, beta) right = Identity(alpha) s = Neg(left)",
        "a = Add(x, alpha) b = Add(a, beta) left = Tanh(b) right = Sin(b) s = Neg(left)",
        # a filter of second order: right, which becomes beta, does not depend on beta
        "s = Add(x, alpha) m = Mul(s, x) n = Sub(x, m) left = Add(n, beta) right = Sub(x, m)",
        # a turn by a quarter: each state becomes the other one
        "b = Neg(beta) left = Add(x, b) right = Add(x, alpha) s = Sub(left, right)",
        # the outputs in another order
        "g = Sigmoid(alpha) k = Mul(g, beta) left = Add(k, x) t = Tanh(left) right = Mul(g, t) s = Sin(t)",
    ],
)
def test_what_the_arithmetic_does_not_tell_is_asked(tmp_path: Path, body: str) -> None:
    for result, last in (("1, 1, 4", "y = Unsqueeze(s, ax)"), ("1, 4", "y = Neg(s)")):
        with pytest.raises(OpenQuestionsError) as caught:
            graph(tmp_path, f"{body} {last}", result=result)
        assert "[state]" in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        "y = Sub(x, prev) left = Identity(x)",  # a difference; the state is the last row
        "m = Mul(prev, prev) y = Sub(x, m) left = Identity(x)",
        "y = Sub(x, prev) k = Mul(prev, prev) left = Add(k, x)",  # what a moving mean leaves, and the mean
        "s = Add(x, prev) left = Tanh(s) o = Sin(prev) y = Add(o, x)",  # a result of the old state
        "s = Add(x, prev) left = Tanh(s) y = Neg(left)",  # a result of the new state
    ],
)
@pytest.mark.parametrize("prev", ["prev", "sub_1"])
def test_a_result_that_looks_like_the_state_is_never_taken_for_it(tmp_path: Path, body: str, prev: str) -> None:
    body = body.replace("prev", prev)
    said = rf'may come back as y or left, and graph and names leave it open\n{prev} = "left"$'
    with pytest.raises(OpenQuestionsError, match=said):
        graph(tmp_path, body, (prev,), "1, 4")


def test_a_result_that_looks_like_the_states(tmp_path: Path) -> None:
    said = r"alpha .*may come back as y or left or right, as does beta"
    with pytest.raises(OpenQuestionsError, match=said) as caught:
        graph(tmp_path, f"{CELL} y = Neg(left)", result="1, 4")
    assert 'alpha = "left"\n' in str(caught.value)
    assert str(caught.value).endswith('beta = "right"')
