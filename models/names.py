"""Names of the recipes, in a separate module so that ``--help`` does not import torch."""

#: Models that learn while they run: ``train`` only writes their checkpoint.
UNTRAINED = ("forecast-online",)
#: Forecasters whose network is trained on many sensors.
SENSORS = ("forecast-universal",)
#: Forecasters of several sensors together, trained on the user's own table.
OWN = ("sensors",)
#: Of texts instead of recordings.
TEXTS = ("written",)
#: Of English recordings, each a family of acoustic models.
ENGLISH = {"english": "lstm", "english-wavenet": "wavenet", "english-attention": "attention"}
NAMES = (
    *UNTRAINED,
    *SENSORS,
    *OWN,
    *TEXTS,
    "digits",
    *ENGLISH,
    "librispeech",
    "librispeech-tiny",
    "tiny-lstm",
    "tiny-wavenet",
)
