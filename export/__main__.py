"""``python -m export CHECKPOINT -o FILE.onnx``: writes one file with its manifest, after the judge has passed it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 if the file was written, 1 if the judge refused it, 2 for a bad checkpoint or option."""
    given = _parser().parse_args(arguments)
    try:
        import models  # imports torch, which takes seconds: not for --help
    except ModuleNotFoundError as error:
        if error.name != "models":
            raise
        print("export: checkpoints need a checkout; for your own module: streamer export --help", file=sys.stderr)
        return 2
    from export.build import RefusedError, build
    from streamer.commands.check import show

    try:
        module, info = models.load(given.checkpoint)
        info = {**info, **_changes(given, info)}
        verdict = build(
            module,
            info,
            given.output,
            chunk_ms=given.chunk_ms,
            int8=given.int8,
            max_batch=given.max_batch,
            seed=given.seed,
            long_chunks=given.endurance,
        )
    except RefusedError as error:
        show(error.verdict)
        print("refused: nothing was written", file=sys.stderr)
        return 1
    except (OSError, ValueError, KeyError) as error:
        missing = f"the checkpoint does not say its {error}" if isinstance(error, KeyError) else str(error)
        print(f"export: {missing}", file=sys.stderr)
        return 2
    show(verdict)
    print(f"{given.output}: {given.output.stat().st_size / 1e6:.1f} MB")
    return 0


def _changes(given: argparse.Namespace, info: dict[str, Any]) -> dict[str, Any]:
    """The command line's changes to the checkpoint's facts."""
    changes: dict[str, Any] = {
        name: getattr(given, name) for name in ("name", "version", "description") if getattr(given, name) is not None
    }
    options = dict(info.get("options", {}))
    if given.options is not None:
        options |= json.loads(given.options.read_text(encoding="utf-8"))
    for name in ("lexicon", "lm", "letters"):
        path = getattr(given, name)
        if path is not None:
            from streamer.contract.manifest import Packed

            options[name] = Packed.pack(path.read_bytes()).model_dump()
    if options:
        changes["options"] = options
    if given.scores is not None:
        changes["scores"] = json.loads(given.scores.read_text(encoding="utf-8"))
    return changes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m export", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="the checkpoint of a training (best.pt)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the .onnx file to write")
    parser.add_argument("--chunk-ms", type=float, help="a whole number of steps (default: nearest to 300 ms)")
    parser.add_argument("--name", help="model name (default: the checkpoint's)")
    parser.add_argument("--version", help="model version (default: the checkpoint's, or 1)")
    parser.add_argument("--description")
    parser.add_argument("--int8", action="store_true", help="integer arithmetic, with scales per row")
    parser.add_argument("--max-batch", type=int, default=64, help="largest batch that is judged (default: %(default)s)")
    parser.add_argument("--options", type=Path, metavar="JSON", help="task options over the checkpoint's")
    parser.add_argument("--lexicon", type=Path, help="lexicon text to pack into the file")
    parser.add_argument("--lm", type=Path, help="language model to pack into the file")
    parser.add_argument("--letters", type=Path, help="pronunciation model to pack into the file")
    parser.add_argument("--scores", type=Path, metavar="JSON", help="scores instead of the checkpoint's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--endurance", type=int, default=2000, help="chunks of the long run (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
