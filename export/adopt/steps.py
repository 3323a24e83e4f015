"""Proves that calls of one step are right for a file that allows any number of steps in a call."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.adopt.batch import TOLERANCE, back, first_call
from export.adopt.graph import constants
from export.adopt.plan import GraphPart
from export.adopt.questions import Questions
from export.adopt.report import AdoptionError
from export.adopt.stream import InputStream, chunk_question
from streamer.contract.probe import deviation

__all__ = ["ask_unless_steps_add_up"]

Arrays = dict[str, NDArray[Any]]

#: Steps of the long call, which is compared with as many calls of one step.
STEPS = 4


def ask_unless_steps_add_up(part: GraphPart) -> None:
    """If one call of four steps gives what four calls of one step give, one step in a call is right.

    Raises :class:`OpenQuestionsError` if it does not: the graph mixes the steps of a call (a mean, a convolution
    without its past), and only the user knows how many steps a call is meant to have.
    """
    if not part.stream.open or any(one.time is None for one in part.more):
        return
    whole = replace(part, stream=_longer(part.stream), more=[_longer(one) for one in part.more])
    try:
        feeds = first_call(whole)
    except AdoptionError:  # the graph does not run on this number of steps
        return
    runner = part.foreign.session()
    names = [output.name for output in runner.get_outputs()]
    want = dict(zip(names, runner.run(names, feeds), strict=True))
    states = {memory.name: feeds[memory.name] for memory in part.memories}
    steps: list[Arrays] = []
    for number in range(STEPS):
        rows = {
            one.name: short.layout.inward(one.layout.outward(feeds[one.name])[:, number : number + 1])
            for one, short in zip(whole.streams, part.streams, strict=True)
        }
        rows = {one.name: rows[one.name].reshape(one.layout.raw_at(1)) for one in part.streams}
        got = dict(zip(names, runner.run(names, {**rows, **states, **constants(part)}), strict=True))
        states = {memory.name: back(memory, states[memory.name], got) for memory in part.memories}
        steps.append(got)
    kept = {memory.out for memory in part.memories}
    if not all(_equal(want[name], [got[name] for got in steps], name in kept) for name in names):
        asked = Questions()
        asked.ask(*chunk_question(part.port(part.stream.name), part.stream.time, sound=False))
        asked.settle()


def _longer(stream: InputStream) -> InputStream:
    return replace(stream, chunk=STEPS, layout=replace(stream.layout, shape=(STEPS, *stream.layout.shape[1:])))


def _equal(want: NDArray[Any], steps: list[NDArray[Any]], last: bool) -> bool:
    """Whether ``want``, of one long call, equals the results of single steps. ``last``: it is a state, so only the last
    step counts; the same holds for a result without a time axis."""
    joined = steps[-1]
    if not last and want.shape != joined.shape:
        along = [a for a, (wide, one) in enumerate(zip(want.shape, joined.shape, strict=True)) if wide != one]
        if len(along) != 1:
            return False
        joined = np.concatenate(steps, axis=along[0])
    if joined.shape != want.shape:
        return False
    return deviation(joined, want) <= TOLERANCE.get(str(want.dtype), 0.0)
