"""``python -m export.adopt MODEL.onnx|FOLDER``: prints findings and the judge's table, writes the file."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 if the file was written, 1 if the model was refused."""
    given = _parser().parse_args(arguments)
    from export.adopt.build import BrokenLawsError, adopt
    from export.adopt.recogniser import adopt_folder
    from export.adopt.report import AdoptionError, Report
    from export.adopt.settings import read_settings
    from streamer.commands.check import show

    # silence these libraries: they warn about graphs of other exporters
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    folder = given.model.is_dir()
    inside = given.model / f"{given.model.resolve().name}.streamer.onnx"
    target = given.output or (inside if folder else given.model.with_name(f"{given.model.stem}.streamer.onnx"))
    progress = _Progress()
    try:
        settings = read_settings(given.config)
        beside = given.config.parent if given.config is not None else Path()
        if target.resolve() == given.model.resolve():
            raise AdoptionError(f"{target} is the model itself: name another file with -o")
        report = Report(progress.say, progress.doing)
        if folder:
            if given.compare:
                raise AdoptionError("--compare is for a single graph, not for a recogniser's folder")
            verdict = adopt_folder(
                given.model,
                target,
                settings,
                report=report,
                max_batch=given.max_batch,
                seed=given.seed,
                long_chunks=given.endurance,
            )
        else:
            verdict = adopt(
                given.model,
                target,
                settings,
                beside=beside,
                report=report,
                max_batch=given.max_batch,
                seed=given.seed,
                long_chunks=given.endurance,
                compare=None if given.compare is None else (given.compare[0], given.compare[1]),
            )
    except BrokenLawsError as error:
        progress.end()
        show(error.verdict)
        print(f"refused: {error}", file=sys.stderr)
        return 1
    except AdoptionError as error:
        progress.end()
        print(f"refused: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        progress.end()
        print(f"adopt: can't write {target}: {error.strerror or error}", file=sys.stderr)
        return 1
    progress.end()
    show(verdict)
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
    print("\n".join(_next_steps(target)))
    return 0


def _next_steps(target: Path) -> list[str]:
    """The commands that run the file."""
    from streamer.engine.model import Model

    manifest = Model.load(target).manifest
    rate = manifest.input.sample_rate
    run = {
        "transcribe": f"streamer transcribe --model {target} talk.wav",
        "enhance": f"streamer enhance --model {target} noisy.wav -o clean.wav",
    }.get(manifest.task)
    if run is None and manifest.task == "classify" and rate is not None:
        run = f"streamer classify --model {target} sound.wav"
    if run is None:
        run = f"streamer run {target} rows.csv"
        if rate is not None:  # it takes rows, not files of sound
            run = f"streamer run {target} samples.npy  # numpy.save of the int16 samples of one channel at {rate} Hz"
    return [f"run it: {run}", f"serve it: streamer serve --model {target}"]


class _Progress:
    """Prints the report on stdout, and progress on stderr: one updated line on a terminal, else a line every
    :data:`EVERY` seconds."""

    #: Seconds between lines where there is no terminal.
    EVERY = 5.0

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._shown = False
        self._last = time.monotonic()

    def say(self, line: str) -> None:
        """Print a line of the report."""
        self.end()
        print(line, flush=True)

    def doing(self, what: str) -> None:
        """Show the current step."""
        now = time.monotonic()
        if self._live:
            print(f"\r\x1b[K{what} ...", end="", file=sys.stderr, flush=True)
            self._shown = True
        elif now - self._last >= self.EVERY:
            print(f"{what} ...", file=sys.stderr, flush=True)
            self._last = now

    def end(self) -> None:
        """Clear the updated line."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._shown = False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="streamer adopt", description=__doc__)
    parser.add_argument("model", type=Path, help="a stateful ONNX model from elsewhere, or a recogniser's folder")
    parser.add_argument("-o", "--output", type=Path, help="file to write (default: MODEL.streamer.onnx beside it)")
    parser.add_argument(
        "-c", "--config", type=Path, metavar="TOML", help="settings for what can't be found (docs/adopt.md)"
    )
    parser.add_argument(
        "--compare", type=Path, nargs=2, metavar=("IN.npz", "OUT.npz"), help="inputs and outputs recorded by your host"
    )
    parser.add_argument("--max-batch", type=int, default=64, help="largest batch that is judged (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the test signals")
    parser.add_argument("--endurance", type=int, default=400, help="chunks of the long run (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
