"""The recipe of the shipped recogniser ``digits``."""

from __future__ import annotations

from collections.abc import Callable

from models.shipped import english
from models.speech import align, data
from models.speech.acoustic import AcousticConfig
from models.speech.augment import Augmentation
from models.speech.corpus import shards
from models.speech.corpus.english import STRINGS
from models.speech.ctc import CtcOptions
from models.speech.cut import cut_words
from models.speech.data import TOKENS, Utterance
from models.speech.mixture import UtteranceSource
from models.speech.scenes import SpeechScenes
from models.training.recipe import Recipe, dev_speakers, set_normaliser

__all__ = ["LEFT_OUT", "digits", "set_normaliser"]

#: The speaker of the isolated-digit set that is held out of training and used for reporting only.
LEFT_OUT = "jackson"

LICENCE = (
    "speechocean762: free for commercial and non-commercial purposes; kitchen noise: Apache-2.0; "
    "espeak-ng and flite voices: synthetic"
)


def aligned_train(rate: int) -> list[Utterance]:
    """speechocean762's training part with the times of its phones."""
    times = align.aligned("speechocean-train", data.speechocean("train", align.RATE))
    corpus = data.speechocean("train", rate)
    for utterance in corpus:
        utterance.segments = times[utterance.key].tolist()
    return corpus


def digits(everybody: bool = False) -> Recipe:
    """The recipe. ``everybody``: train on the development speakers, too. Raises ``FileNotFoundError`` if there is no
    corpus yet (``python -m models corpus english``)."""
    rate = 16000
    folder = english.made_corpus()
    made = english.corpus_reader(folder, "kokoro")()
    learners = english.corpus_reader(folder.parent / "digits", STRINGS)()
    corpus = aligned_train(rate)
    spelling = sorted({u.speaker for u in corpus if u.is_digits})
    held = sorted({*dev_speakers(corpus, 3, 2), *spelling[2::5]})
    train, dev = data.by_speaker(corpus, held)
    train = corpus if everybody else train
    takes = [u for u in data.fsdd(rate) if u.speaker != LEFT_OUT]
    wide = Augmentation(
        speeds=(0.8, 1.3),
        speed=0.85,
        noise=0.5,
        reverb=0.25,
        narrow=0.25,
        warp=0.15,
        tilt=0.5,
        time_masks=4,
        time_width=16,
    )
    return Recipe(
        name="digits",
        config=AcousticConfig(
            "wavenet",
            rate,
            len(TOKENS),
            channels=160,
            skip=160,
            kernel=3,
            dilations=(1, 2, 4, 1, 2, 4, 8),
            dropout=0.15,
            gated=True,
        ),
        options=CtcOptions(minutes=80, rate=3e-3, weight_decay=0.02, phones=0.0, primed=0.3),
        augmentation=wide,
        sources=[
            UtteranceSource("sentences", [u for u in train if not u.is_digits], _moving(0.25, 0.1)),
            UtteranceSource("strings", [u for u in train if u.is_digits], _moving(0.1, 0.2), joined=(1, 2)),
            UtteranceSource(
                "words", cut_words(train, data.DIGITS, rate), _moving(0.15, 0.25), joined=(2, 7), gaps=(0.0, 0.4)
            ),
            UtteranceSource("takes", takes, _moving(0.15, 0.15), joined=(1, 7), gaps=(0.0, 0.45)),
            UtteranceSource("others", made, _moving(0.12, 0.05)),
            UtteranceSource("others' strings", [u for u in made if u.is_digits], _moving(0.08, 0.08)),
            UtteranceSource(
                "others' words", cut_words(made, data.DIGITS, rate), _moving(0.1, 0.1), joined=(2, 7), gaps=(0, 0.4)
            ),
            *_learners(learners, rate),
            UtteranceSource("nothing", [], _moving(0.05, 0.07)),
        ],
        noise=data.kitchen(rate),
        dev={
            "digits": [u for u in dev if u.is_digits],
            "sentences": [u for u in dev if not u.is_digits][::3],
        },
        seconds=40.0,
        batches=400,
        limit=lambda p: 10.0,
        hearing=SpeechScenes,
        info={
            "lexicon": {word.lower(): data.pronounce(word) for word in data.DIGITS},
            "lowest_rate": 8000,  # a quarter of the examples, and all of FSDD, have no more bandwidth
            "data": "speechocean762 train without the development speakers, its digits also cut out and "
            f"joined to new strings; FSDD without speaker {LEFT_OUT} joined into strings; synthetic speakers (python "
            "-m models corpus english) saying digits, and other things",
            "licence": english.LICENCE + "; Free Spoken Digit Dataset: CC BY-SA 4.0",
        },
    )


def _learners(strings: list[shards.Recording], rate: int) -> list[UtteranceSource]:
    """The sources of the corpus "digits"; none if it has not been made."""
    if not strings:
        return []
    words = cut_words(strings, data.DIGITS, rate)
    return [
        UtteranceSource("learners' strings", strings, _moving(0.25, 0.25)),
        UtteranceSource("learners' words", words, _moving(0.1, 0.1), joined=(2, 7), gaps=(0.0, 0.4)),
    ]


def _moving(early: float, late: float) -> Callable[[float], float]:
    """A weight by progress: ``early``, then linear from .3 to .7 of the training, then ``late``."""
    return lambda p: early + (late - early) * min(1.0, max(0.0, (p - 0.3) / 0.4))
