"""Readings count while a body is read: short lines become much longer than they are."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from streamer.metrics import Metrics
from streamer.sensors.layout import RowLayout
from streamer.serve import bounds
from streamer.serve.bounds import RequestMemory, TooMuchError
from streamer.serve.readings import line_protocol
from streamer.serve.readings.parsed import READING, TOGETHER, read_batch
from streamer.sources.readings import Columns, Readings

COUNT = 20 * TOGETHER
LAYOUT = RowLayout(1, ("0.5",), (0.5,))


def charged(most: int) -> ExitStack:
    """A request under way, which may hold ``most``."""
    stack = ExitStack()
    account = stack.enter_context(RequestMemory(Metrics(), most).account())
    token = bounds._ACCOUNT.set(account)
    stack.callback(bounds._ACCOUNT.reset, token)
    return stack


def table() -> Readings:
    return Readings("body", Columns(), lambda text: None, b"value\n" + b"1\n" * COUNT)


def lines() -> bytes:
    return b"a b=1\n" * COUNT


@pytest.mark.parametrize("enough", [True, False])
def test_the_readings_of_a_body_are_bounded_with_all_others(enough: bool) -> None:
    with charged(COUNT * READING - (0 if enough else 1)):
        if enough:
            assert len(read_batch(table(), LAYOUT, "body")) == COUNT
        else:
            with pytest.raises(TooMuchError, match="max_request_memory"):
                read_batch(table(), LAYOUT, "body")
    with charged(COUNT * READING - (0 if enough else 1)):
        if enough:
            assert len(line_protocol.parse(lines(), 1e-9).batch) == COUNT
        else:
            with pytest.raises(TooMuchError, match="max_request_memory"):
                line_protocol.parse(lines(), 1e-9)
