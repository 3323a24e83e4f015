"""plotly.js out of the installed package ``plotly`` (the extra ``pages``); the package itself is never imported."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from streamer.serve.pages.files import PageFile

__all__ = ["SCRIPT", "Charts", "find_charts"]

SCRIPT = "plotly.min.js"
#: Ids of the style elements that the library makes unless there is an element of that id. The pages' policy forbids
#: styles in a document, so the page makes empty ones; none is for a chart that is drawn here.
STYLES = re.compile(rb'getElementById\("([0-9a-f]{64})"\)')


class Charts:
    """``file``: the library; ``styles``: see :data:`STYLES`."""

    def __init__(self, body: bytes) -> None:
        self.file = PageFile.of(SCRIPT, body)
        self.styles = sorted({found.decode() for found in STYLES.findall(body)})


def find_charts() -> Charts | None:
    """``None``: the package is not installed. Takes a second: for a thread."""
    try:
        spec = find_spec("plotly")
    except ValueError:  # something of that name without a spec
        return None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "package_data" / SCRIPT
        if path.is_file():
            return Charts(path.read_bytes())
    return None
