"""Options of ``python -m models corpus``, without importing the networks."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from models.speech.corpus.packages import corpus_folder

#: Hours by default.
HOURS = {"english": 60.0, "digits": 2.0}


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("corpus", choices=tuple(HOURS), help="digits: strings of them by learners and children")
    defaults = ", ".join(f"{corpus} {hours:g}" for corpus, hours in HOURS.items())
    parser.add_argument("--hours", type=float, help=f"of synthetic speech (default: {defaults})")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: %(default)d)")
    parser.add_argument("--folder", type=Path, help="default: $STREAMER_CORPUS, or ~/.cache/streamer/corpus")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--gigabytes", type=float, default=20.0, help="largest size (default: %(default)g)")
    parser.add_argument("--table", action="store_true", help="only show the contents of the corpus")


def run(options: argparse.Namespace) -> int:
    from models.speech.corpus import english
    from models.speech.data import data_folder

    folder = options.folder or corpus_folder()
    try:
        if options.table:
            english.show(folder / options.corpus)
        else:
            hours = HOURS[options.corpus] if options.hours is None else options.hours
            english.run(folder, data_folder(), options.corpus, hours, options.jobs, options.seed, options.gigabytes)
    except (RuntimeError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: the same command continues", file=sys.stderr)
        return 130
    return 0
