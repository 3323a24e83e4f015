"""The simplest server of rows: FastAPI, states in a dictionary, one ``session.run`` a request.

``python -m bench.peers.plain_rows MODEL.onnx PORT``.
"""

from __future__ import annotations

import sys

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI
from numpy.typing import NDArray

from bench.peers.shapes import LAYERS, WIDTH


def application(model: str) -> FastAPI:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options)
    states: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
    zero = np.zeros((LAYERS, 1, WIDTH), np.float32)
    app = FastAPI()

    @app.post("/streams/{key}")
    def rows(key: str, values: list[list[float]]) -> dict[str, list[list[float]]]:
        h, c = states.get(key, (zero, zero))
        y, h, c = session.run(None, {"x": np.array([values], np.float32), "h": h, "c": c})
        states[key] = (h, c)
        return {"y": y[0].tolist()}

    return app


if __name__ == "__main__":
    uvicorn.run(application(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
