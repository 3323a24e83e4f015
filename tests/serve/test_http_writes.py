"""An answer is one write, and nothing that is written is lost, reordered or kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from streamer.serve.http import JoinedWrites


class Written:
    """A transport that keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")

    def is_closing(self) -> bool:
        return "close" in self.calls


def run(act: Callable[[JoinedWrites], None], turns: int = 2) -> tuple[list[bytes | str], list[bytes | str]]:
    """What was done at once, and after some turns of the loop."""

    async def main() -> tuple[list[bytes | str], list[bytes | str]]:
        transport = Written()
        joined = JoinedWrites(transport, asyncio.get_running_loop())  # type: ignore[arg-type]
        act(joined)
        assert joined.is_closing() == transport.is_closing()
        at_once = list(transport.calls)
        for _ in range(turns):
            await asyncio.sleep(0)
        return at_once, transport.calls

    return asyncio.run(main())


def writes(*parts: bytes, then: str | None = None) -> Callable[[JoinedWrites], None]:
    def act(transport: JoinedWrites) -> None:
        for part in parts:
            transport.write(part)
        if then is not None:
            getattr(transport, then)()

    return act


@pytest.mark.parametrize(
    ("act", "at_once", "later"),
    [
        (writes(b"head", b"body"), [b"headbody"], []),
        (writes(b"head"), [], [b"head"]),  # of an answer that is written as it comes
        (writes(b"head", b"", then=None), [b"head"], []),  # without a body
        (writes(b"head", b"body", b"head", b"body"), [b"headbody", b"headbody"], []),
        (writes(b"a", b"b", b"c"), [b"ab"], [b"c"]),
        (writes(b"head", then="close"), [b"head", "close"], []),
        (writes(b"head", then="abort"), ["abort"], []),
        (writes(b"", b""), [], []),
    ],
)
def test_a_write_waits_for_the_next_one_and_no_longer_than_a_turn(
    act: Callable[[JoinedWrites], None], at_once: list[bytes | str], later: list[bytes | str]
) -> None:
    assert run(act) == (at_once, at_once + later)
