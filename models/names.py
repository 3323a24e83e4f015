"""Names of the recipes, in a separate module so that ``--help`` does not import torch."""

#: Models without trained weights, which learn while they run: ``train`` only writes their checkpoint.
UNTRAINED = ("forecast-online",)
#: Forecasters whose network is trained on many sensors.
SENSORS = ("forecast-universal",)
#: Forecasters of several sensors together, trained on the user's own table.
OWN = ("sensors",)
#: Models of text.
TEXTS = ("written",)
#: Recognisers of English, with their family of acoustic models. ``english`` is shipped.
ENGLISH = {"english": "attention", "english-lstm": "lstm", "english-wavenet": "wavenet"}
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
