"""``POST /v1/generate``: a JSON request in, JSON events out, one a line, as the model writes them.

The generator runs no faster than the client reads: a stream with a slow reader pauses, and is given up if its client
does not read for ``send_seconds``.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from streamer.faults import faults
from streamer.json_words import json_trouble
from streamer.refusals import NoSlot
from streamer.serve.access.grant import ANYONE, Denied, Grant, grant_of
from streamer.serve.body import problem, read_body
from streamer.serve.readings.parsed import BodyError
from streamer.streams.generators import VersionGoneError
from streamer.whole import whole

if TYPE_CHECKING:
    from streamer.streams.generators import Generators, GeneratorStream

__all__ = ["GenerateRoute"]

log = logging.getLogger(__name__)

LAST = ("end", "restart", "error")
#: Most events that are sent together: a fast model needs few writes.
TOGETHER = 64


class GenerateRequest(BaseModel):
    """``length``: tokens, prompt included (characters, note events, samples). ``after``: tokens the client has already.
    ``digest``: the version of the model that wrote these, from the answer's header ``Model-Digest``; another version
    would write other tokens. ``options``: of the task, as :class:`streamer.tasks.generate.Request`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    model: Annotated[str, Field(max_length=200)] | None = None
    length: Annotated[int, Field(ge=1)] = 1000
    after: Annotated[int, Field(ge=0)] = 0
    digest: Annotated[str, Field(max_length=64)] | None = None
    options: dict[str, Any] = {}


class GenerateRoute:
    """``closed()``: why new requests are refused, or ``None``."""

    def __init__(self, generators: Generators, closed: Callable[[], tuple[str, str] | None]) -> None:
        self._generators, self._closed = generators, closed

    async def answer(self, request: Request) -> Response:
        if closed := self._closed():
            return problem(503, ": ".join(closed), 1.0)
        try:
            body = await read_body(request, self._generators.settings.max_request_bytes)
            wish = GenerateRequest.model_validate(whole(json.loads(body)))
        except BodyError as error:
            return problem(error.status, str(error))
        except (RecursionError, ValueError) as error:
            if not isinstance(error, ValidationError):
                return problem(
                    400, f'the body is not JSON ({json_trouble(error)}): {{"length": 100}} is expected, or the like'
                )
            return problem(400, faults(error, GenerateRequest, "the body"))
        loop, there = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:  # from a lane
            if not loop.is_closed():
                loop.call_soon_threadsafe(there.set)

        grant = grant_of(request.scope)
        try:
            grant.check_generated()
            stream = self._generators.open(wish.model, wish.options, wish.length, wish.after, wake, wish.digest)
        except KeyError as error:
            return problem(404, error.args[0])
        except VersionGoneError as error:
            return problem(409, str(error))
        except ValueError as error:
            return problem(400, str(error))
        except NoSlot as error:
            return problem(503, str(error), 1.0)
        except Denied as error:
            return problem(error.status, error.message, error.retry_after)
        return EventLines(self._generators, stream, there, grant)


class EventLines(Response):
    """An answer with the events of one stream, until the last one, or until the client is gone."""

    media_type = "application/x-ndjson"

    def __init__(
        self, generators: Generators, stream: GeneratorStream, there: asyncio.Event, grant: Grant = ANYONE
    ) -> None:
        super().__init__()
        del self.headers["content-length"]
        self.headers["model-digest"] = stream.digest
        self._generators, self._stream, self._there, self._grant = generators, stream, there, grant

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._grant.generated():
            await self._answer(receive, send)

    async def _answer(self, receive: Receive, send: Send) -> None:
        writing = asyncio.create_task(self._write(send))
        gone = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait((writing, gone), return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                writing.result()
        except TimeoutError:
            log.info("a client does not read what it asked for: given up", extra={"model": self._stream.model})
        finally:
            self._generators.leave(self._stream)
            for task in (writing, gone):
                task.cancel()

    async def _write(self, send: Send) -> None:
        patience, more = self._generators.settings.send_seconds, True
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await asyncio.wait_for(send(start), patience)
        while more:
            self._there.clear()
            lines: list[str] = []
            while len(lines) < TOGETHER and more and (event := self._stream.get()) is not None:
                lines.append(json.dumps(event, ensure_ascii=False) + "\n")
                more = event["type"] not in LAST
            if lines:
                body = {"type": "http.response.body", "body": "".join(lines).encode(), "more_body": more}
                await asyncio.wait_for(send(body), patience)
            else:
                await self._there.wait()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
