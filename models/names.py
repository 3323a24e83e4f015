"""Names of the recipes, apart from them so that ``--help`` loads no torch."""

#: Models that learn while they run: ``train`` only writes their checkpoint.
UNTRAINED = ("forecast-online",)
#: Forecasters whose network is trained on many sensors.
SENSORS = ("forecast-universal",)
NAMES = (
    *UNTRAINED,
    *SENSORS,
    "digits",
    "english-small",
    "librispeech",
    "librispeech-tiny",
    "tiny-lstm",
    "tiny-wavenet",
)
