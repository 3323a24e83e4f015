"""What the exporter finds out of a module by running it: the call, names, batch and time; and what it refuses, why."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from export.axes import TensorLayout
from export.forward import ExportError
from export.look import ModuleSignature, evaluating, look
from tests.export.modules import (
    Both,
    Cell,
    Counting,
    Deciding,
    Growing,
    Held,
    Nested,
    OneStream,
    PaddedConv,
    Random,
    SequenceFirst,
    Several,
    Sound,
    Stars,
    Tokens,
    zeros,
)


def found(module: nn.Module, example: Any, states: Any = None, **more: Any) -> ModuleSignature:
    options = {"limits": None, "time": None, "whole": True, "seed": 0, "say": lambda line: None}
    torch.manual_seed(0)
    with evaluating(module):
        return look(module, example, states, more.pop("conditions", {}), **{**options, **more})


def state(*places: int | None) -> tuple[TensorLayout, ...]:
    return tuple(TensorLayout(place, timed=False) for place in places)


def test_the_default_layout_has_time_first() -> None:
    what = found(SequenceFirst(), zeros(5, 1, 4), (zeros(1, 1, 8), zeros(1, 1, 8)))
    assert what.forward.state_names == ("lstm.h", "lstm.c")
    assert what.axes.inputs == (TensorLayout(1, 0),)
    assert what.axes.states == state(1, 1)
    assert what.axes.outputs == (TensorLayout(1, 0),)
    assert (what.axes.whole, what.axes.free) == (True, True)


def test_an_example_of_several_streams_is_taken_too() -> None:
    what = found(SequenceFirst(), zeros(5, 3, 4), (zeros(1, 3, 8), zeros(1, 3, 8)))
    assert what.axes.inputs == (TensorLayout(1, 0),)
    assert what.axes.states == state(1, 1)


@pytest.mark.parametrize("states", [(zeros(1, 8), zeros(1, 8)), {"c": zeros(1, 8), "h": zeros(1, 8)}])
def test_states_one_by_one_in_order_or_by_name(states: Any) -> None:
    what = found(Cell(), zeros(1, 4), states)
    assert sorted(what.forward.state_names) == ["c", "h"]
    assert what.axes.inputs == (TensorLayout(0, None),)  # a row of four features, not four steps
    with torch.no_grad():
        outputs, new = what.forward({"x": torch.ones(1, 4)}, [torch.ones(1, 8), torch.zeros(1, 8)])
        given = dict(zip(what.forward.state_names, (torch.ones(1, 8), torch.zeros(1, 8)), strict=True))
        h, (_, c) = what.forward.module(torch.ones(1, 4), **given)
    back = dict(zip(what.forward.state_names, new, strict=True))
    assert torch.equal(outputs[0], h)
    assert torch.equal(back["c"], c)


def test_states_come_back_by_name_where_they_have_one() -> None:
    class Swapped(Cell):
        def forward(self, x, h, c):
            h, c = self.cell(x, (h, c))
            return x, c, h

    what = found(Swapped(), zeros(1, 4), (zeros(1, 8), zeros(1, 8)))
    with torch.no_grad():
        _, new = what.forward({"x": torch.ones(1, 4)}, [zeros(1, 8), zeros(1, 8)])
        assert torch.equal(new[0], what.forward.module.cell(torch.ones(1, 4))[0])


def test_an_option_of_forward_is_no_state() -> None:
    class Explaining(nn.Module):
        def forward(self, x, weigh=False):
            return x * 2, x.softmax(-1)

    with pytest.raises(ExportError, match="nothing that a stream could remember"):
        found(Explaining(), zeros(1, 4))


def test_several_inputs_and_a_condition() -> None:
    example = {"wind": zeros(1, 2, 1), "x": zeros(1, 2, 3)}
    what = found(Several(), example, zeros(1, 1, 8), conditions={"speaker": zeros(1, 3)})
    assert what.forward.inputs == ("wind", "x")
    assert what.forward.output_names == ("mean", "last")
    assert what.axes.conditions == state(0)
    assert what.axes.outputs == (TensorLayout(0, 0), TensorLayout(0, None))


def test_args_and_nested_states() -> None:
    assert found(Stars(), zeros(1, 4), (zeros(1, 8), zeros(1, 8))).forward.state_names == ("a", "b")
    pair = (zeros(1, 1, 4), zeros(1, 1, 4))
    names = found(Nested(), zeros(1, 1, 4), [pair, pair]).forward.state_names
    assert names == ("layers.0.h", "layers.0.c", "layers.1.h", "layers.1.c")


def test_without_a_batch_one_stream_a_call() -> None:
    what = found(OneStream(), zeros(4), zeros(8))
    assert not what.axes.free
    assert what.axes.inputs == (TensorLayout(None, None),)


def test_samples_are_steps_and_a_step_of_output_is_many() -> None:
    what = found(Sound(), zeros(1, 1600), zeros(1, 1, 16))
    assert what.axes.inputs == (TensorLayout(0, 0),)
    assert what.axes.outputs == (TensorLayout(0, 0),)


def test_time_may_be_said() -> None:
    """Of a module for one call's length nothing but the shape can tell; it is the caller's to say otherwise."""

    class Framed(nn.Module):
        def forward(self, x, h):
            return x.view(-1, 2, 5) + h[:, None], h + x.view(-1, 2, 5)[:, -1]

    assert found(Framed(), zeros(1, 2, 5), zeros(1, 5), whole=False).axes.inputs == (TensorLayout(0, 0),)
    assert found(Framed(), zeros(1, 2, 5), zeros(1, 5), whole=False, time=2).axes.inputs == (TensorLayout(0, 1),)
    lines: list[str] = []
    found(Cell(), zeros(1, 4), (zeros(1, 8), zeros(1, 8)), say=lines.append)
    assert any("1 step of 4 values" in line and "time={'x': 1}" in line for line in lines)


def test_training_goes_on_where_it_was() -> None:
    module = nn.Sequential(nn.Dropout(), nn.Dropout())
    module[1].eval()
    with evaluating(module):
        assert not any(part.training for part in module.modules())
    assert [part.training for part in module.modules()] == [True, True, False]


@pytest.mark.parametrize(
    ("module", "example", "states", "why"),
    [
        (Growing(), zeros(1, 1, 4), zeros(1, 1, 4), r"grows with every call.*dim=1\)\[:, -1:\]"),
        (Held(), zeros(1, 1, 4), None, r"(?s)changes self\.h.*def forward\(self, x, h\).*self\.gru"),
        (Both(), zeros(1, 1, 4), None, "gru is bidirectional"),
        (PaddedConv(), zeros(1, 4, 4), zeros(1, 1, 8), r"the state lacks part of the past"),
        (nn.Linear(4, 4), zeros(1, 4), None, "(?s)nothing that a stream could remember.*return y, state"),
        (Random(), zeros(1, 4), zeros(1, 4), "different outputs for the same inputs"),
        (Cell(), zeros(1, 4), zeros(1, 8), r"forward\(x, h, c\) takes 2 more than the example, 1 states"),
        (Cell(), {"y": zeros(1, 4)}, zeros(1, 8), "no parameter y"),
        (Cell(), zeros(1, 4), (zeros(1, 8), 0.0), r"torch.tensor\(0.0\)"),
        (Cell(), zeros(1, 4).bfloat16(), None, "bfloat16"),
        (SequenceFirst(), zeros(5, 1, 4), (zeros(1, 1, 9), zeros(1, 1, 8)), "can't be called"),
    ],
)
def test_what_is_refused(module: nn.Module, example: Any, states: Any, why: str) -> None:
    with pytest.raises(ExportError, match=why):
        found(module, example, states)


def test_the_state_of_layers_is_no_proof_where_more_is_remembered() -> None:
    class Hidden(PaddedConv):
        def forward(self, x):
            return super().forward(x)[0]

    with pytest.raises(ExportError, match=r"(?s)not all it remembers.*torch.cat\(\[cache, x\], dim=2\)"):
        found(Hidden(), zeros(1, 1, 4))


def test_limits_are_those_of_the_embedding_or_said() -> None:
    assert found(Tokens(), torch.zeros(1, 1, dtype=torch.int64), zeros(1, 1, 8), limits=(0, 6)).limits == {
        "ids": (0, 6)
    }
    assert found(Counting(), zeros(1, 1, 4), torch.tensor([3])).limits == {}
    with pytest.raises(ExportError, match="integer inputs"):
        found(Cell(), zeros(1, 4), (zeros(1, 8), zeros(1, 8)), limits={"x": (0, 6)})


def test_a_decision_by_value_is_seen_as_rows_that_touch() -> None:
    assert not found(Deciding(), zeros(1, 4), zeros(1, 4)).axes.free
