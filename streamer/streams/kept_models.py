"""Model files that streams may still come back to, in the state directory.

A new version replaces the old one's file, and a restarted daemon finds only the new file. So each file that serves
streams is kept as long as streams may need it. It is a copy, since overwriting a file changes its hard links, too.
Without room for a copy, the streams of an old version can't continue after a restart, and nothing else is lost.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from streamer.contract.signature import SIGNATURE

if TYPE_CHECKING:
    from streamer.settings import Settings

__all__ = ["KeptModels"]

log = logging.getLogger(__name__)

END = ".onnx"


class KeptModels:
    """``most`` files of versions that no longer serve; ``room``: bytes that a copy leaves free. Failures of the disk
    are logged.

    A file is called ``NUMBER-DIGEST.onnx``: among versions that no longer serve, the lowest number is deleted first.
    """

    def __init__(self, folder: Path, most: int, room: int) -> None:
        self._folder, self._most, self._room = folder, most, room

    @classmethod
    def of(cls, settings: Settings) -> KeptModels:
        return cls(settings.state_directory / "models", settings.max_old_models, settings.min_free_bytes)

    def keep(self, path: Path, digest: str) -> None:
        """Keep the file of a version that serves from now on."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if self._there(digest) is None:
                self._take(path, self._next(digest))
        except OSError as error:
            text = "a model file is not kept: once another version is in its place a restart ends its streams"
            log.warning(text, extra={"file": str(path), "error": error.strerror or str(error)})

    def find(self, digest: str) -> Path | None:
        """The kept file, if it is unchanged."""
        path = self._there(digest)
        if path is None:
            return None
        try:
            if hashlib.sha256(path.read_bytes()).hexdigest() == digest:
                return path
        except OSError:
            return None
        log.warning("a kept model file was changed", extra={"file": str(path)})
        self.forget(digest)
        return None

    def forget(self, digest: str) -> None:
        if (path := self._there(digest)) is not None:
            for gone in (path, _signature(path)):
                with contextlib.suppress(OSError):
                    gone.unlink(missing_ok=True)

    def retire(self, digest: str) -> None:
        """Mark a version as no longer serving."""
        if (path := self._there(digest)) is not None:
            new = self._next(digest)
            with contextlib.suppress(OSError):
                if _signature(path).exists():
                    _signature(path).replace(_signature(new))
                path.replace(new)

    def bound(self, serving: Collection[str]) -> None:
        """Delete files of retired versions beyond ``most``, the one retired first at first."""
        old = [path for path in self._all() if _digest(path) not in serving]
        for path in old[: max(0, len(old) - self._most)]:
            self.forget(_digest(path))

    def _all(self) -> list[Path]:
        return sorted(self._folder.glob(f"*-*{END}"))

    def _there(self, digest: str) -> Path | None:
        return next(iter(self._folder.glob(f"*-{digest}{END}")), None)

    def _next(self, digest: str) -> Path:
        number = max(
            (int(name) for path in self._all() if (name := path.name.partition("-")[0]).isdecimal()), default=0
        )
        return self._folder / f"{number + 1:08d}-{digest}{END}"

    def _take(self, path: Path, kept: Path) -> None:
        if _signature(path).is_file():
            shutil.copyfile(_signature(path), _signature(kept))
        partial = kept.with_suffix(".partial")
        size, free = path.stat().st_size, shutil.disk_usage(self._folder).free
        if free - size < self._room:
            raise OSError(f"it has {size} bytes, {free} are free")
        try:
            shutil.copyfile(path, partial)
            partial.replace(kept)
        except OSError:
            partial.unlink(missing_ok=True)
            raise


def _signature(path: Path) -> Path:
    return path.with_name(path.name + SIGNATURE)


def _digest(path: Path) -> str:
    return path.stem.partition("-")[2]
