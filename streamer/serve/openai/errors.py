"""Errors in OpenAI's shape: ``{"error": {"message", "type", "param", "code"}}``."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from streamer.refusals import Refused

__all__ = ["OpenAIError", "error_of"]

#: HTTP status for every reason of a refusal; any other is 503.
STATUS = {"unknown_model": 404, "options": 400, "rate": 400, "not_pcm": 400, "bad_audio": 400, "model_failed": 500}


class OpenAIError(Exception):
    """The request ends with this answer. ``param``: the faulty field."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after = 1.0 if status == 503 and retry_after is None else retry_after

    def to_dict(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        headers = {} if self.retry_after is None else {"Retry-After": str(max(1, round(self.retry_after)))}
        return JSONResponse(self.to_dict(), self.status, headers)


def error_of(refused: Refused) -> OpenAIError:
    """The answer for a refusal, with the code that OpenAI's clients know, if there is one."""
    code = "model_not_found" if refused.reason == "unknown_model" else refused.reason
    param = "model" if refused.reason == "unknown_model" else None
    status = STATUS.get(refused.reason, 503)
    return OpenAIError(status, refused.message, param=param, code=code, retry_after=refused.retry_after)
