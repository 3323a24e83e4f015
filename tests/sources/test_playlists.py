"""A recording is one file: what names others, and would have ffmpeg read them, is refused."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
import soundfile as sf

from streamer.sources import SourceError
from streamer.sources.files import AudioFile
from streamer.sources.memory import MemorySource
from tests.toys import speech

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")

#: ffmpeg looks behind tags for what a file is.
TAGS = (b"", b"ID3\x03\0\0\0\0\0\x0a" + bytes(10), b"ID3\x03\0\0\0\0\x08\x00" + bytes(range(256)) * 4)


def playlists(other: Path) -> list[str]:
    """Of a file in the folder for temporary ones, where ffmpeg is given standard input and uploads."""
    near = other.relative_to(tempfile.gettempdir())
    return [
        f"ffconcat version 1.0\nfile '{near}'\n",
        f"ffconcat version 1.0\nfile '{other}'\n",
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXT-X-VERSION:3\n#EXTINF:9,\nfile://{other}\n#EXT-X-ENDLIST\n",
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXT-X-VERSION:3\n#EXTINF:9,\n{near}\n#EXT-X-ENDLIST\n",
    ]


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("which", range(4))
def test_it_reads_no_other_file(tag: bytes, which: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "secret.wav"
        sf.write(other, speech("AB"), 8000)
        with pytest.raises(SourceError):
            read(tag + playlists(other)[which].encode())


def read(upload: bytes) -> bytes:
    sound = AudioFile(None, source=MemorySource(upload), name="upload")
    try:
        return b"".join(sound.blocks())
    finally:
        sound.close()
