"""Writes the dashboards: ``python deploy/grafana/make.py [FOLDER]``, by default into ``dashboards/`` beside this file.
Change the modules here, not the JSON: a test compares them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from engine import engine
from panels import written
from sensors import sensors
from speech import speech

BOARDS = {"engine": engine, "speech": speech, "sensors": sensors}


def main(folder: Path) -> None:
    for name, make in BOARDS.items():
        (folder / f"{name}.json").write_text(written(make()), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent / "dashboards")
