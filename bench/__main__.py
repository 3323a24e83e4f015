"""``python -m bench NAME [--json] ...``: a table and a picture; ``--json``: one JSON object as last line."""

from __future__ import annotations

import sys
from importlib import import_module

NAMES = ("engine", "latency", "start", "memory", "asr", "decode")


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
        print(f"usage: python -m bench {{{','.join(NAMES)}}} [--json] [--help]", file=sys.stderr)
        return 2
    import_module(f"bench.{sys.argv[1]}").main(sys.argv[2:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
