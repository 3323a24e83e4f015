"""Times of the phones in training recordings: forced alignment by PocketSphinx and its stock acoustic model.

CTC must learn itself where the phones are, which takes long with three hours of speech; with alignments, training adds
a framewise loss, and words can be cut out of recordings. The corpus's canonical phones are aligned, not a dictionary's,
and each phone is a word of the aligner, because its own pass from words to phones fails for half of the learners'
recordings.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from numpy.typing import NDArray

from models.speech.data import TOKENS, Utterance, cache_folder

RATE = 16000
FRAME = 160  # samples: 10 ms
#: [P, 2]: first frame of every phone, and the frame after its last; no rows if the recording could not be aligned.
Segments = NDArray[np.int32]


class Aligner:
    """Forced alignment with the package ``pocketsphinx``, which contains the acoustic model."""

    def __init__(self) -> None:
        from pocketsphinx import Decoder

        # wide beams and no limit, because learners and children differ from the speech that the model was trained on
        self._decoder = Decoder(
            lm=None, samprate=RATE, loglevel="FATAL", beam=1e-120, pbeam=1e-120, wbeam=1e-100, maxhmmpf=-1,
            bestpath=False,
        )  # fmt: skip
        for phone in TOKENS[1:]:
            self._decoder.add_word(f"phone-{phone}", phone, update=phone == TOKENS[-1])

    def segments(self, pcm: NDArray[np.int16], phones: Sequence[str]) -> Segments:
        """The segments of ``phones`` in ``pcm``, int16 [N] at 16 kHz."""
        decoder = self._decoder
        try:
            decoder.set_align_text(" ".join(f"phone-{phone}" for phone in phones))
            decoder.start_utt()
            decoder.process_raw(pcm.tobytes(), full_utt=True)
            decoder.end_utt()
            found = [s for s in decoder.seg() or () if s.word.startswith("phone-")]
        except RuntimeError:  # no alignment was found
            found = []
        if [s.word.removeprefix("phone-") for s in found] != list(phones):
            found = []
        return np.array([(s.start_frame, s.end_frame + 1) for s in found], np.int32).reshape(-1, 2)


def _align(utterances: list[Utterance]) -> list[Segments]:
    aligner = Aligner()
    return [aligner.segments(np.asarray(u.pcm), u.flat) for u in utterances]


def aligned(name: str, utterances: list[Utterance], workers: int = 2) -> dict[str, Segments]:
    """Segments by the utterances' keys; recordings of 16 kHz. They are cached as ``name`` in the cache folder."""
    path = cache_folder() / f"{name}-segments.npz"
    if not path.exists():
        parts = [utterances[i :: 8 * workers] for i in range(8 * workers)]  # small enough to keep all workers busy
        with ProcessPoolExecutor(workers) as pool:
            done = [segments for part in pool.map(_align, parts) for segments in part]
        keys = [u.key for part in parts for u in part]
        np.savez_compressed(path, keys=keys, counts=[len(s) for s in done], segments=np.concatenate(done))
    with np.load(path) as found:
        pieces = np.split(found["segments"], np.cumsum(found["counts"])[:-1])
        return dict(zip(found["keys"].tolist(), pieces, strict=True))
