"""Rewrites the advice in messages of the command line as request parameters, or removes it where there are none."""

from __future__ import annotations

import re

__all__ = ["as_parameters", "without"]

OPTION = re.compile(r"--(columns|id|time-format|time|value|decimal|missing|zone) (?=\S)")
ADVICE = re.compile(r"give --columns \S+|: say which with --.*$|; --(value|time-format) .*?(?=[,)]|$)")


def as_parameters(text: str) -> str:
    """``give --columns time,value``: ``give ?columns=time,value``."""
    return OPTION.sub(lambda match: f"?{match[1].replace('-', '_')}=", text)


def without(text: str) -> str:
    """The message without advice, for protocols without parameters."""
    return ADVICE.sub(lambda match: "a header is needed, such as time,value" if match[0][0] == "g" else "", text)
