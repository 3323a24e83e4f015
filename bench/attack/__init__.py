"""Attacks on a daemon in a separate process: ``python -m bench attack [NAME ...]``.

Each attack is a module here with ``run(scale) -> Iterator[AttackRow]``. It starts its own daemon, attacks it for a
while and yields one row for each requirement: the measured value, the bound, whether the requirement was met. A small
version of each runs in the tests.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Protocol, cast

from bench.report import finish

#: All attacks, by the names of their modules.
NAMES: tuple[str, ...] = (
    "origins",
    "tenants",
    "logs",
    "fuzz",
    "gaps",
    "readings",
    "loop",
    "overload",
    "disks",
    "files",
    "full",
    "kills",
    "endurance",
)


@dataclass(frozen=True, slots=True)
class AttackRow:
    """A requirement (``what``), the value ``found``, and the bound ``reach``, in words for a reader."""

    attack: str
    what: str
    reach: str
    found: str
    held: bool


@dataclass(frozen=True, slots=True)
class Scale:
    """``share``: the size of the attacks; the documentation's figures have 1, tests less. ``seed``: of all random
    numbers."""

    share: float = 1.0
    seed: int = 0


class Attack(Protocol):
    def run(self, scale: Scale) -> Iterator[AttackRow]: ...


def attack(name: str) -> Attack:
    return cast(Attack, import_module(f"bench.attack.{name}"))


def main(argv: list[str]) -> None:
    """Exit status 1 if a requirement was not met."""
    parser = argparse.ArgumentParser(prog="python -m bench attack", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(NAMES)}")
    parser.add_argument("--share", type=float, default=1.0, help="size of the attacks; 0.1 is a quick look")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    given = parser.parse_args(argv)
    if unknown := sorted(set(given.names) - set(NAMES)):
        parser.error(f"no attack is called {', '.join(unknown)}; there are {', '.join(NAMES)}")
    rows: list[AttackRow] = []
    for name in given.names or NAMES:
        print(f"{name} ...", file=sys.stderr, flush=True)
        rows += attack(name).run(Scale(given.share, given.seed))
    finish(
        "attack",
        {"rows": [asdict(row) for row in rows]},
        columns=("attack", "what", "reach", "found", "held"),
        rows=[(row.attack, row.what, row.reach, row.found, "yes" if row.held else "NO") for row in rows],
        as_json=given.json,
    )
    if not all(row.held for row in rows):
        sys.exit(1)
