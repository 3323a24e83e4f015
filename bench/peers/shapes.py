"""Constants of the two models for servers and clients. It imports nothing, so that they start without PyTorch."""

from __future__ import annotations

#: The recogniser: samples a second, samples and frames of a chunk, tokens, the last of which is the blank.
RATE, CHUNK, FRAMES = 8000, 2400, 10
TOKENS = [*"abcdefghijklmnopqrstuvwxyz", " ", "<blk>"]

#: The model of rows: values of a row, width and number of the layers.
CHANNELS, WIDTH, LAYERS = 8, 128, 2
