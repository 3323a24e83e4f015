"""Finds the graphs and the list of tokens in a downloaded folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from export.adopt.read import Foreign, read
from export.adopt.report import AdoptionError, Report, listed

__all__ = ["Files", "find"]

#: Ending of files that ``streamer adopt`` itself writes, perhaps in an earlier run.
OURS = ".streamer.onnx"
#: Minimum opset: from here on the added operators have one meaning.
OPSET = 13
PARTS = ("encoder", "decoder", "joiner")


@dataclass(frozen=True)
class Files:
    """A transducer's ``encoder``, ``decoder`` and ``joiner``; or a CTC model as ``encoder`` alone."""

    folder: Path
    tokens: Path
    encoder: Foreign
    decoder: Foreign | None = None
    joiner: Foreign | None = None

    @property
    def all(self) -> tuple[Foreign, ...]:
        """The graphs that exist."""
        return tuple(file for file in (self.encoder, self.decoder, self.joiner) if file is not None)


def find(folder: Path, report: Report, *, int8: bool = False) -> Files:
    """Find the files of a recogniser. ``int8``: take the quantised file of a graph that exists twice. Raises
    :class:`AdoptionError`."""
    tokens = folder / "tokens.txt"
    if not tokens.is_file():
        raise AdoptionError(f"{folder} has no tokens.txt: a recogniser's folder has its graphs and its tokens")
    try:
        names = sorted(path.name for path in folder.glob("*.onnx") if not path.name.endswith(OURS))
    except OSError as error:
        raise AdoptionError(f"can't read {folder}: {error.strerror or error}") from error
    if not names:
        raise AdoptionError(f"{folder} has no .onnx file")
    parts = {part: [name for name in names if part in name] for part in PARTS}
    if all(parts.values()):
        chosen = [_one(folder, part, parts[part], int8) for part in PARTS]
    elif parts["encoder"]:
        missing = [part for part in PARTS if not parts[part]]
        raise AdoptionError(f"{folder} has an encoder and no {' and no '.join(missing)}: a transducer has all three")
    else:
        chosen = [_one(folder, "model", names, int8)]
    for path in chosen:
        report.found(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
    files = [read(path, OPSET) for path in chosen]
    newest = max(file.opset for file in files)  # one graph has one opset
    return Files(folder, tokens, *(file if file.opset == newest else read(file.path, newest) for file in files))


def _one(folder: Path, what: str, names: list[str], int8: bool) -> Path:
    """The quantised or the float file of a graph. Raises :class:`AdoptionError` if there are several."""
    wanted = [name for name in names if ("int8" in name) == int8] or names
    if len(wanted) > 1:
        raise AdoptionError(f"{folder} has {len(wanted)} graphs for the {what}, {listed(wanted)}: leave one there")
    return folder / wanted[0]
