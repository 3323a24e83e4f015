"""Whisper as the second recogniser, by the package ``faster-whisper`` (CTranslate2 on the CPU), the extra ``revise``.

Its encoder always works on 30 s, so a short final costs nearly as much as a long one.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.streams.revision import Heard, HeardWord

__all__ = ["Whisper", "WhisperError"]

log = logging.getLogger(__name__)

#: Three words that were said already are not said again; without it the small models loop.
NO_REPEAT = 3


class WhisperError(ValueError):
    """The package is missing, or the model is not to be had. The message says what to do."""


class Whisper:
    """``name``: a folder in CTranslate2's format, or a name that faster-whisper knows, which it then may fetch.

    ``workers``: threads that call at a time; ``threads``: of each run. ``language``: a code such as ``en``. Raises
    :class:`WhisperError`.
    """

    rate = 16000

    def __init__(self, name: str, *, workers: int = 1, threads: int = 1, language: str = "en", beam: int = 5) -> None:
        try:
            from faster_whisper import WhisperModel
        except ImportError as error:
            text = "a second pass needs the package faster-whisper: pip install 'streamer[revise]'"
            raise WhisperError(text) from error
        folder = Path(name).expanduser()
        here = folder.is_dir()
        if not here and (os.sep in name or name.startswith((".", "~"))):
            raise WhisperError(f"no folder {name}: a Whisper model in CTranslate2's format is a folder with model.bin")
        if not here:
            log.info("the Whisper model is looked for in the cache, else fetched", extra={"model": name})
        try:
            self._model: Any = WhisperModel(
                str(folder) if here else name,
                device="cpu",
                compute_type="int8",
                cpu_threads=threads,
                num_workers=workers,
                local_files_only=here,
            )
        except Exception as error:  # of several libraries: no network, no such name, a file that is damaged
            lines = str(error).strip().splitlines()
            why = lines[0] if lines else type(error).__name__
            raise WhisperError(f"the Whisper model {name!r} can't be loaded: {why}") from error
        self._options: dict[str, Any] = {
            "language": language,
            "beam_size": beam,
            "temperature": 0.0,
            "no_repeat_ngram_size": NO_REPEAT,
            "condition_on_previous_text": False,
            "without_timestamps": True,
            "word_timestamps": True,
        }

    def hear(self, sound: NDArray[np.float32]) -> Heard:
        segments = list(self._model.transcribe(sound, **self._options)[0])
        words: list[HeardWord] = []
        for word in (word for segment in segments for word in segment.words or ()):
            text, end, sure = word.word.strip(), float(word.end), round(float(word.probability), 4)
            if words and not word.word.startswith(" "):  # "-4" of "3-4"
                last = words.pop()
                words.append(HeardWord(last.text + text, last.start, end, min(last.confidence, sure)))
            else:
                words.append(HeardWord(text, float(word.start), end, sure))
        if not segments:
            return Heard(silence=1.0)
        tokens = sum(len(segment.tokens) for segment in segments) or 1
        logp = sum(segment.avg_logprob * len(segment.tokens) for segment in segments) / tokens
        return Heard(tuple(words), max(float(segment.no_speech_prob) for segment in segments), float(logp))
