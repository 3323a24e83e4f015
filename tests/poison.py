"""The shared habit of this house: whatever groups its work gets one poisoned member, and the others are looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["among", "raising"]

Member = TypeVar("Member")
Result = TypeVar("Result")


def among(
    good: Sequence[Member], poison: Member, run: Callable[[list[Member]], Sequence[Result]]
) -> list[tuple[list[Result], list[Result]]]:
    """Run ``good`` as a group, then with ``poison`` first, in the middle and last. ``run`` gives one result a member,
    in order. For each place: the results of the good members without it, and with it."""
    alone = list(run(list(good)))
    found = []
    for place in (0, len(good) // 2, len(good)):
        results = list(run([*good[:place], poison, *good[place:]]))
        assert len(results) == len(good) + 1
        del results[place]
        found.append((alone, results))
    return found


def raising(call: Callable[..., Result], bad: Callable[..., bool], error: BaseException) -> Callable[..., Result]:
    """``call``, but it raises ``error`` where ``bad`` of its arguments is true."""

    def poisoned(*arguments: object, **options: object) -> Result:
        if bad(*arguments, **options):
            raise error
        return call(*arguments, **options)

    return poisoned
