"""plotly.js from the installed package ``plotly`` (the extra ``pages``); the package itself is never imported."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from streamer.serve.pages.files import PageFile

__all__ = ["SCRIPT", "Charts", "find_charts"]

SCRIPT = "plotly.min.js"
#: Ids of the style elements that the library adds unless an element with that id exists. The pages' policy forbids
#: style elements, so the page adds empty elements with these ids; our charts need none of these styles.
STYLES = re.compile(rb'getElementById\("([0-9a-f]{64})"\)')


class Charts:
    """``file``: the library; ``styles``: see :data:`STYLES`."""

    def __init__(self, body: bytes) -> None:
        self.file = PageFile.of(SCRIPT, body)
        self.styles = sorted({found.decode() for found in STYLES.findall(body)})


def find_charts() -> Charts | None:
    """Read the library; ``None``: the package is not installed. Takes a second, so call it in a thread."""
    try:
        spec = find_spec("plotly")
    except ValueError:  # a module of that name without a spec
        return None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "package_data" / SCRIPT
        if path.is_file():
            return Charts(path.read_bytes())
    return None
