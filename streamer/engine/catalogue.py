"""Models by name: the shipped ones, the small ones of a checkout's zoo, and files by path."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from streamer.engine.model import ModelError

__all__ = [
    "DENOISER",
    "ENGLISH",
    "NUMBERS",
    "SENSORS",
    "WRITTEN",
    "default_models",
    "find_examples",
    "find_models",
    "resolve",
]

#: The shipped recogniser that transcribes where no model is named.
ENGLISH = "english"
#: The shipped model for any sensor.
SENSORS = "forecast-universal"
#: The shipped model that takes noise out of speech.
DENOISER = "denoiser"
#: The shipped model that writes numbers in digits; used on finals, not served as a stream.
NUMBERS = "numbers"
#: The shipped model of punctuation and capitals; used on finals, too.
WRITTEN = "written"


def find_models() -> list[Path]:
    """The shipped files, by name: inside the installed package, or beside it in a checkout."""
    package = Path(str(files("streamer")))
    found: dict[str, Path] = {}
    for folder in (package / "pretrained", package.parent / "models" / "pretrained"):
        for path in sorted(folder.glob("*.onnx")):
            found.setdefault(path.stem, path)
    return [found[name] for name in sorted(found)]


def default_models() -> list[str]:
    """The shipped models that are served by default: all for audio, and one for sensors. The first one,
    :data:`ENGLISH`, serves clients that name no model."""
    names = [path.stem for path in find_models()]
    inside = (NUMBERS, WRITTEN)
    served = [name for name in names if name not in inside and (not name.startswith("forecast-") or name == SENSORS)]
    return sorted(served, key=lambda name: (name != ENGLISH, name == DENOISER))


def find_examples() -> list[Path]:
    """The small models of a checkout's zoo, by name; none are in the installed package."""
    return sorted((Path(str(files("streamer"))).parent / "models" / "zoo" / "trained").glob("*.onnx"))


def resolve(name_or_path: str) -> Path:
    """The file of a shipped model, of a zoo model, or at a path. Raises :class:`ModelError` that lists known names."""
    shipped: dict[str, Path] = {}
    for path in (*find_models(), *find_examples()):
        shipped.setdefault(path.stem, path)
    if name_or_path in shipped:
        return shipped[name_or_path]
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    known = ", ".join(shipped) or "none"
    raise ModelError(f"no model {name_or_path!r}: it is neither a shipped name (there are: {known}) nor a file")
