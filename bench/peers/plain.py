"""The simplest server: a WebSocket of FastAPI, state in a local variable, one ``session.run`` a chunk.

``python -m bench.peers.plain MODEL.onnx PORT``. It is well configured: one thread a call, no spinning, and calls run
outside of the event loop, at most as many at a time as there are cores.
"""

from __future__ import annotations

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from bench.peers.shapes import CHUNK, TOKENS


def application(model: str) -> FastAPI:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, options)
    width = session.get_inputs()[1].shape[1]
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    app = FastAPI()

    @app.websocket("/stream")
    async def stream(socket: WebSocket) -> None:
        await socket.accept()
        state, waiting, last, text = np.zeros((1, width), np.float16), b"", TOKENS[-1], ""
        try:
            while True:
                waiting += await socket.receive_bytes()
                while len(waiting) >= 2 * CHUNK:
                    pcm, waiting = np.frombuffer(waiting[: 2 * CHUNK], np.int16), waiting[2 * CHUNK :]
                    feeds = {"signal": pcm.astype(np.int32).reshape(1, CHUNK, 1), "state": state}
                    logp, state = await asyncio.get_running_loop().run_in_executor(pool, session.run, None, feeds)
                    for index in logp[0].argmax(axis=1).tolist():
                        if TOKENS[index] not in (last, TOKENS[-1]):
                            text += TOKENS[index]
                        last = TOKENS[index]
                    await socket.send_json({"text": text[-100:]})
        except WebSocketDisconnect:
            pass

    @app.get("/readyz")
    async def ready() -> str:
        return "ready"

    return app


if __name__ == "__main__":
    uvicorn.run(application(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
