"""Names of the recipes, apart from them so that ``--help`` loads no torch."""

#: Models that learn while they run: ``train`` only writes their checkpoint.
UNTRAINED = ("forecast-online",)
NAMES = (*UNTRAINED, "digits", "english-small", "librispeech", "librispeech-tiny", "tiny-lstm", "tiny-wavenet")
