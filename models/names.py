"""Names of the recipes, apart from them so that ``--help`` loads no torch."""

NAMES = ("digits", "english-small", "librispeech", "librispeech-tiny", "tiny-lstm", "tiny-wavenet")
