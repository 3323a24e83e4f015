"""Adapts a stateful ONNX model from elsewhere to the contract: ``python -m export.adopt MODEL.onnx``.

The graph itself stays unchanged, except for a fixed batch axis, which becomes dynamic (:mod:`export.adopt.free`).
Everything else is added around it: transposes before and after every state, constants in place of inputs, and state
that the host's code used to keep (:mod:`export.adopt.around`, :mod:`export.adopt.spectrum`).

    read -> roles (names) -> plan (shapes) -> batch (made dynamic, proved by running) -> around -> record, judge, write
"""
