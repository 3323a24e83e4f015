"""What servers and clients know of the two models. It imports nothing: they start without PyTorch."""

from __future__ import annotations

#: The recogniser: samples a second, samples and frames of a chunk, tokens, of which the last one is the blank.
RATE, CHUNK, FRAMES = 8000, 2400, 10
TOKENS = [*"abcdefghijklmnopqrstuvwxyz", " ", "<blk>"]

#: The model of rows: values of one, width and number of its layers.
CHANNELS, WIDTH, LAYERS = 8, 128, 2
