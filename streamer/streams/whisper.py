"""Whisper as the second recogniser, by the package ``faster-whisper`` (CTranslate2 on the CPU), the extra ``revise``.

Its encoder always works on 30 s, so a short final costs nearly as much as a long one.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.streams.revision import Heard, HeardWord

__all__ = ["Whisper", "WhisperError", "check_whisper"]

log = logging.getLogger(__name__)

#: Length of a word sequence that may not repeat; without this bound the small models loop.
NO_REPEAT = 3


class WhisperError(ValueError):
    """The package is missing, or the model can't be loaded. The message says what to do."""


def check_whisper(name: str) -> Path | None:
    """The folder that ``name`` stands for; ``None``: a model that faster-whisper knows and may download. Takes little
    time. Raises :class:`WhisperError`."""
    try:
        from faster_whisper import available_models
    except ImportError as error:
        raise WhisperError("a second pass needs the package faster-whisper: pip install 'streamer[revise]'") from error
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if os.sep in name or name.startswith((".", "~")):
        raise WhisperError(f"no folder {name}: a Whisper model in CTranslate2's format is a folder with model.bin")
    if name not in (known := available_models()):
        raise WhisperError(f"no Whisper model is named {name!r}: name a folder, or one of {', '.join(known)}")
    return None


class Whisper:
    """``name``: a folder in CTranslate2's format, or a name that faster-whisper knows and may download.

    ``workers``: threads that call at a time; ``threads``: of each run. ``language``: a code such as ``en``. Raises
    :class:`WhisperError`.
    """

    rate = 16000

    def __init__(self, name: str, *, workers: int = 1, threads: int = 1, language: str = "en", beam: int = 5) -> None:
        folder = check_whisper(name)
        from faster_whisper import WhisperModel
        from faster_whisper.tokenizer import Tokenizer
        from faster_whisper.transcribe import get_suppressed_tokens

        if folder is None:
            log.info("the Whisper model is looked for in the cache, else fetched", extra={"model": name})
        try:
            self._model: Any = WhisperModel(
                name if folder is None else str(folder),
                device="cpu",
                compute_type="int8",
                cpu_threads=threads,
                num_workers=workers,
                local_files_only=folder is not None,
            )
        except Exception as error:  # of several libraries: no network, no such name, a file that is damaged
            lines = str(error).strip().splitlines()
            why = lines[0] if lines else type(error).__name__
            raise WhisperError(f"the Whisper model {name!r} can't be loaded: {why}") from error
        whisper = self._model.model
        self._tokenizer: Any = Tokenizer(self._model.hf_tokenizer, whisper.is_multilingual, "transcribe", language)
        self._prompt = self._model.get_prompt(self._tokenizer, [], without_timestamps=True)
        self._options: dict[str, Any] = {
            "beam_size": beam,
            "no_repeat_ngram_size": NO_REPEAT,
            "suppress_tokens": get_suppressed_tokens(self._tokenizer, [-1]),
            "max_length": self._model.max_length,
            "return_scores": True,
            "return_no_speech_prob": True,
        }

    def hear(self, sound: NDArray[np.float32]) -> Heard:
        """One pass over at most 30 s. The package's own ``transcribe`` is not used: with word times it continues after
        the last word that it found, and invents words for the rest of the pause."""
        from faster_whisper.audio import pad_or_trim

        features = self._model.feature_extractor(sound)
        frames = min(features.shape[-1], self._model.feature_extractor.nb_max_frames)
        encoded = self._model.encode(pad_or_trim(features))
        result = self._model.model.generate(encoded, [self._prompt], **self._options)[0]
        tokens = result.sequences_ids[0]
        logp = result.scores[0] * len(tokens) / (len(tokens) + 1)  # the end counts, as in Whisper
        text = [token for token in tokens if token < self._tokenizer.eot]
        found = self._model.find_alignment(self._tokenizer, [text], encoded, frames)[0] if text else []
        return Heard(tuple(_words(found)), float(result.no_speech_prob), float(logp))


def _words(found: Sequence[Mapping[str, Any]]) -> list[HeardWord]:
    """Words from pieces: a piece with a space begins a word, others continue it: marks, and "-4" of "3-4"."""
    words: list[HeardWord] = []
    for piece in found:
        text, end, sure = piece["word"].strip(), float(piece["end"]), round(float(piece["probability"]), 4)
        if not text:
            continue
        if words and not piece["word"].startswith(" "):
            last = words.pop()
            spoken = re.search(r"\w", text) is not None  # a mark takes no time and says nothing of the word
            words.append(
                HeardWord(
                    last.text + text,
                    last.start,
                    end if spoken else last.end,
                    min(last.confidence, sure) if spoken else last.confidence,
                )
            )
        else:
            words.append(HeardWord(text, float(piece["start"]), end, sure))
    return words
