"""Adapts a stateful ONNX model from elsewhere to the contract: ``python -m export.adopt MODEL.onnx``.

The graph itself stays unchanged, except for a fixed batch axis, which is made free (:mod:`export.adopt.free`).
Everything else is added around it: transposes before and after every state, constants in place of inputs, and memory
that the host's code used to keep (:mod:`export.adopt.around`, :mod:`export.adopt.spectrum`).

    read -> roles (names) -> plan (shapes) -> batch (freed, proved by running) -> around -> record, judge, write
"""
