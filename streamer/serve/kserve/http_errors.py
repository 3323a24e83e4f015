"""A KServe error as HTTP has it."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from streamer.serve.kserve.errors import KServeError

__all__ = ["error_response"]


def error_response(error: KServeError) -> Response:
    """``Retry-After`` only where the error says that trying again does no harm: nothing was taken."""
    headers = {} if error.retry_after is None else {"Retry-After": str(max(1, round(error.retry_after)))}
    return JSONResponse({"error": error.message}, error.status, headers)
