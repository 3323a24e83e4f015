"""Decodes what libsndfile can't through ``ffmpeg``, if it is installed: M4A, WebM, AAC, AMR, WMA, videos."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

from streamer.sources import SourceError
from streamer.sources.source import Source

__all__ = ["Converter"]

INSTALL = "sudo apt install ffmpeg"
#: Most bytes of standard input, which is copied to the disk first: the index of an M4A may follow its sound.
MOST = 4 * 2**30
#: ffmpeg's demuxers that read one file only. The others read playlists and the like: these name further files, which
#: ffmpeg would open for the sender of the first one.
FORMATS = (
    *("3g2", "3gp", "aac", "ac3", "aiff", "amr", "amrnb", "amrwb", "ape", "asf", "au", "avi", "caf", "dts", "dtshd"),
    *("eac3", "flac", "flv", "g722", "loas", "m4a", "matroska", "mj2", "mlp", "mov", "mp3", "mp4", "mpc", "mpc8"),
    *("mpeg", "mpegts", "nistsphere", "nut", "ogg", "rm", "tak", "truehd", "tta", "voc", "w64", "wav", "webm", "wv"),
    "xwma",
)
#: Characters at the end of ffmpeg's last message that an error quotes.
QUOTED = 400


class Converter:
    """Converts ``source`` to WAV, 16 bit at its own rate and channels, readable as a :class:`Source`.

    ``path``: of the file, or ``None`` for a pipe. ``what``: the container's name. Raises :class:`SourceError`.
    """

    def __init__(self, source: Source, path: Path | None, what: str) -> None:
        program = shutil.which("ffmpeg")
        if program is None:
            raise SourceError(f"is {what}, which ffmpeg decodes, and it is not installed: {INSTALL}")
        self._what = what
        self._spool = None if path is not None else _spooled(source, what)
        given = path if path is not None else Path(self._spool.name) if self._spool is not None else Path()
        self._given = os.fspath(given.absolute())
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115
        command: list[str | bytes] = [program, "-nostdin", "-v", "error", "-protocol_whitelist", "file,pipe"]
        command += ["-format_whitelist", ",".join(FORMATS), "-i"]
        command += [b"file:" + os.fsencode(self._given), "-map", "0:a:0", "-f", "wav"]
        command += ["-c:a", "pcm_s16le", "pipe:1"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._messages, close_fds=True
        )
        assert self._process.stdout is not None
        self.source = Source(self._process.stdout.fileno(), owned=False)

    def check(self) -> None:
        """Call at the end. Raises :class:`SourceError` with ffmpeg's message if it failed."""
        if self._process.wait() == 0:
            return
        self._messages.seek(0, os.SEEK_END)
        self._messages.seek(max(0, self._messages.tell() - 10 * QUOTED))  # whole names, even of a line that is cut
        said = self._messages.read().decode("utf-8", "replace")
        for name in (f"file:{self._given}", self._given):  # the error has the file's name; a copy's is the daemon's
            said = said.replace(f"{name}: ", "").replace(name, "the file")
        lines = said.strip().splitlines()
        if lines and "matches no streams" in " ".join(lines):
            raise SourceError(f"is {self._what} without sound")
        last = lines[-1][-QUOTED:] if lines else "it does not say why"
        raise SourceError(f"is {self._what} that ffmpeg can't decode ({last})")

    def interrupt(self) -> None:
        """Stop ffmpeg, from any thread. Its output so far can still be read."""
        self._process.kill()

    def close(self) -> None:
        self._process.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()
        threading.Thread(target=self._process.wait, daemon=True).start() if self._process.poll() is None else None
        self._messages.close()
        if self._spool is not None:
            self._spool.close()


def _spooled(source: Source, what: str) -> tempfile._TemporaryFileWrapper[bytes]:
    file = tempfile.NamedTemporaryFile()  # noqa: SIM115
    for piece in source.pieces(0):
        file.write(piece)
        if file.tell() > MOST:
            file.close()
            raise SourceError(f"is {what} of more than {MOST >> 30} GB on a pipe: give it as a file")
    file.flush()
    return file
