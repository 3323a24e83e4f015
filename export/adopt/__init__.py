"""Somebody else's stateful ONNX model to a file that fits the contract: ``python -m export.adopt MODEL.onnx``.

The graph itself is left as it is, but for a batch that is fixed in it (:mod:`export.adopt.free`). Everything else goes
around it: transposes in front of and behind every state, constants in the place of inputs, and the memory that the
host's code kept (:mod:`export.adopt.around`, :mod:`export.adopt.spectrum`).

    read -> roles (names) -> plan (shapes) -> batch (freed, proved by running) -> around -> record, judge, write
"""
