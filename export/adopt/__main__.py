"""``python -m export.adopt MODEL.onnx|FOLDER``: what is found and done, the judge's table, and a file that fits."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """0: written. 1: refused, nothing was written."""
    given = _parser().parse_args(arguments)
    from export.adopt.build import BrokenLawsError, adopt
    from export.adopt.recogniser import adopt_folder
    from export.adopt.report import AdoptionError, Report
    from export.adopt.settings import read_settings
    from streamer.commands.check import show

    # the exporter's libraries think aloud about graphs that are none of theirs
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    folder = given.model.is_dir()
    inside = given.model / f"{given.model.resolve().name}.streamer.onnx"
    target = given.output or (inside if folder else given.model.with_name(f"{given.model.stem}.streamer.onnx"))
    try:
        settings = read_settings(given.config)
        beside = given.config.parent if given.config is not None else Path()
        if target.resolve() == given.model.resolve():
            raise AdoptionError(f"{target} is the model itself: name another file with -o")
        report = Report(lambda line: print(line, flush=True))
        bounds = {"max_batch": given.max_batch, "seed": given.seed, "long_chunks": given.endurance}
        if folder:
            verdict = adopt_folder(given.model, target, settings, report=report, **bounds)
        else:
            verdict = adopt(given.model, target, settings, beside=beside, report=report, **bounds)
    except BrokenLawsError as error:
        show(error.verdict)
        print(f"refused: {error}", file=sys.stderr)
        return 1
    except AdoptionError as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"adopt: can't write {target}: {error.strerror or error}", file=sys.stderr)
        return 1
    show(verdict)
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="streamer adopt", description=__doc__)
    parser.add_argument("model", type=Path, help="a stateful ONNX model from elsewhere, or a recogniser's folder")
    parser.add_argument("-o", "--output", type=Path, help="file to write (default: MODEL.streamer.onnx beside it)")
    parser.add_argument("-c", "--config", type=Path, metavar="TOML", help="what can't be guessed (docs/adopt.md)")
    parser.add_argument("--max-batch", type=int, default=64, help="largest batch that is judged (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the test signals")
    parser.add_argument("--endurance", type=int, default=400, help="chunks of the long run (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
