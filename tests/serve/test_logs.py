"""What comes from outside can't forge a record, nor speak to a terminal."""

from __future__ import annotations

import io
import json
import logging
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.names import stream_id
from streamer.serve import logs

#: A forged record, a terminal's colours and title, C1 controls, separators of lines, direction overrides, surrogates.
ATTACKS = [
    "x\n12:00:00.000 error   forged",
    "x\r12:00:00.000 error   forged",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x9b31m\x85\x90",
    "a\u2028b\u2029c\x0b\x0c\x1c",
    "\u202eesrever\u2066",
    "\ud800 alone",
    "tab\tbell\x07nul\x00del\x7f",
    "x  level=error  stream=forged",
    'quote " and \\ backslash',
    "\U000e0001tag",
    "",
]


@pytest.fixture(params=["console", "json"])
def log(request: pytest.FixtureRequest) -> tuple[str, logging.Logger, io.StringIO]:
    """A logger that nobody else knows of: what pytest captures of the others it can't send on, where it is no
    Unicode."""
    root, stream = logging.getLogger(), io.StringIO()
    before, level = root.handlers[:], root.level
    logs.configure("info", request.param, stream)
    logger = logging.Logger("tests.logs", logging.INFO)
    logger.handlers = root.handlers[:]
    root.handlers[:] = before
    root.setLevel(level)
    return request.param, logger, stream


def written(stream: io.StringIO) -> str:
    """As bytes for a terminal: it must be text that can be written."""
    text = stream.getvalue()
    assert text.encode("utf-8").decode() == text
    assert text.endswith("\n")
    return text[:-1]


@pytest.mark.parametrize("text", ATTACKS, ids=range(len(ATTACKS)))
def test_a_record_is_one_printable_line(log: tuple[str, logging.Logger, io.StringIO], text: str) -> None:
    style, logger, stream = log
    logger.info("said %s", text, extra={"reason": text, "stream": text})
    line = written(stream)
    assert line.isprintable(), line
    if style == "json":
        found = json.loads(line)
        assert (found["event"], found["reason"], found["stream"]) == (f"said {text}", text, text)
    else:
        columns = re.findall(r'  (\w+)=("(?:[^"\\]|\\.)*"|\S+)', line.partition("said ")[2][len(logs.escaped(text)) :])
        assert [name for name, _ in columns] == ["reason", "stream"]


@given(st.text(st.characters(exclude_categories=())))
def test_whatever_it_is_it_comes_back_from_json(text: str) -> None:
    record = logging.makeLogRecord({"msg": "%s", "args": (text,), "reason": text})
    line = logs.JsonFormatter().format(record)
    assert line.isprintable()
    again = json.loads(line)["reason"]
    assert again.encode("utf-16", "surrogatepass") == text.encode("utf-16", "surrogatepass")
    assert logs.ConsoleFormatter().format(record).isprintable()


def test_a_trace_is_set_in(log: tuple[str, logging.Logger, io.StringIO]) -> None:
    style, logger, stream = log
    try:
        raise ValueError("x\n12:00:00.000 error   forged\x1b[31m")
    except ValueError:
        logger.exception("it failed", exc_info=sys.exc_info())
    lines = written(stream).split("\n")
    assert all(line.isprintable() for line in lines)
    assert all(line.startswith("    ") for line in lines[1:])
    assert len(lines) == 1 if style == "json" else len(lines) > 3


def test_whose_stream_it_is_stands_beside_its_name(log: tuple[str, logging.Logger, io.StringIO]) -> None:
    style, logger, stream = log
    logger.info("attached", extra={"stream": stream_id("alice", "pump-7")})
    line = written(stream)
    if style == "json":
        assert json.loads(line)["stream"] == "pump-7"
        assert json.loads(line)["owner"] == "alice"
    else:
        assert line.endswith("attached  stream=pump-7  owner=alice")
