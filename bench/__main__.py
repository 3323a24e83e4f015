"""``python -m bench NAME [--json] [--keep] ...`` prints a table and draws a picture. ``--json``: one JSON object as the
last line; ``--keep``: stores the figures for ``report``, which writes them into docs/benchmarks.md."""

from __future__ import annotations

import signal
import sys
from importlib import import_module

from bench.report import keep

NAMES = (
    "engine",
    "servers",
    "rows",
    "latency",
    "start",
    "memory",
    "asr",
    "context",
    "silence",
    "noise",
    "decode",
    "hotwords",
    "generate",
    "parallel",
    "online",
    "nab",
    "universal",
    "sensors",
    "soak",
    "attack",
    "zoo",
    "report",
)


def main() -> int:
    usage = f"usage: python -m bench {{{','.join(NAMES)}}} [--json] [--keep] [--help]"
    if sys.argv[1:2] in (["--help"], ["-h"]):
        print(f"{__doc__}\n\n{usage}")
        return 0
    if sys.argv[1:2] == [] or sys.argv[1] not in NAMES:
        print(usage, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that daemons are stopped, too
    name, *rest = keep(sys.argv[1:])
    import_module(f"bench.{name}").main(rest)
    return 0


if __name__ == "__main__":
    sys.exit(main())
