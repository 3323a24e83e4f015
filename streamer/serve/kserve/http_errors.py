"""KServe errors as HTTP responses."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from streamer.serve.kserve.errors import KServeError

__all__ = ["error_response"]


def error_response(error: KServeError) -> Response:
    """The response, with ``Retry-After`` only if the error has it: then nothing was taken, and a retry is safe."""
    headers = {} if error.retry_after is None else {"Retry-After": str(max(1, round(error.retry_after)))}
    return JSONResponse({"error": error.message}, error.status, headers)
