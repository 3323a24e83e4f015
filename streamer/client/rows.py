"""A client that streams rows to a daemon: inputs of any model are sent, outputs come back as arrays.

async with RowStream("ws://127.0.0.1:8765", model="plant", key="pump-7") as stream:
    outputs = await stream.step(rows)              # {"y": array [steps, ...]}

with SyncRowStream("ws://127.0.0.1:8765", model="plant", key="pump-7") as stream:
    outputs = stream.step(rows)
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from concurrent.futures import CancelledError
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import numpy as np
from numpy.typing import NDArray

from streamer.arrays import numbers
from streamer.client.replay import ReplayBounds, ReplayClient, StreamError

__all__ = ["RowStream", "SyncRowStream"]

T = TypeVar("T")
Arrays = dict[str, NDArray[Any]]
#: Rows of one input, or of several by name: arrays, or lists of numbers.
Rows = NDArray[Any] | list[Any] | Mapping[str, Any]


class RowStream(ReplayClient):
    """One stream of a model's rows. A row is one step along time: an array [*row_shape] for each input.

    ``key``: a name under which the stream outlives this client and a restart of the daemon; without a key the stream
    ends with the client. ``conditions``: arrays by name, set once for the stream. ``ready`` describes the model's
    inputs and outputs. Positions count all rows of the key, including those of earlier connections. Events are those
    of ``docs/protocols/streams.md``, with ``outputs`` as arrays [steps, ...] by name.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        key: str | None = None,
        conditions: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        overflow: str = "wait",
        **bounds: Unpack[ReplayBounds],
    ):
        start = {
            "type": "start",
            "outputs": "binary",
            "overflow": overflow,
            **({"model": model} if model is not None else {}),
            **({"key": key} if key is not None else {}),
            **({"options": dict(options)} if options else {}),
            **({"conditions": {name: _listed(value) for name, value in conditions.items()}} if conditions else {}),
        }
        super().__init__(url, start, **bounds)
        self._resume_as = {"outputs": "binary"}

    async def send(self, rows: Rows) -> None:
        """Send rows [n, *row_shape], by name where there are several inputs. Waits while the replay buffer is full.

        Raises ``ValueError`` for rows of another shape or numbers that the dtype can't hold, and :class:`StreamError`.
        """
        await self.send_bytes(self._encode(rows))

    async def step(self, rows: Rows) -> Arrays:
        """Send ``rows`` and wait for their outputs [steps, ...] by name.

        One caller at a time may use it, and must not read events meanwhile: unread outputs of earlier rows are dropped,
        except those of the chunk that these rows complete. Raises ``ValueError`` if the rows do not complete a chunk,
        if the model's task has no outputs, and with ``overflow="gap"``, where rows may be dropped. Raises
        :class:`StreamError`.
        """
        data = self._encode(rows)
        chunk = int(self.ready["chunk_rows"])
        start = self.position
        end = start + len(data) // self._row_bytes
        if self._start["overflow"] == "gap":
            raise ValueError('with overflow="gap" rows may be dropped: send them, and read the events')
        if self.ready["task"] != "raw":
            raise ValueError(f"the model is for the task {self.ready['task']}: send rows, and read its events")
        if end % chunk:
            raise ValueError(f"the model runs chunks of {chunk} rows, these rows end at row {end}: send whole chunks")
        await self.send_bytes(data)
        parts: list[Arrays] = []
        while data:
            event = await self._next()
            if event is None:
                self._check()
                raise StreamError("ended", "the stream has ended")
            if event["type"] == "gap" or (event["type"] == "outputs" and event["end"] % chunk):
                raise StreamError("gap", "rows of this stream were dropped, so its chunks have moved: read its events")
            if event["type"] == "outputs" and event["end"] > start:
                parts.append(event["outputs"])
                if event["end"] >= end:
                    break
        return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else {})}

    # -- the wire ----------------------------------------------------------------------------------------------------

    def _encode(self, rows: Rows) -> bytes:
        """Rows in the wire format: the inputs of a row concatenated, little-endian."""
        specs = self.ready["inputs"]
        if not isinstance(rows, Mapping):
            if len(specs) > 1:
                names = ", ".join(spec["name"] for spec in specs)
                raise ValueError(f"the model has several inputs: give the rows by name, {names}")
            rows = {specs[0]["name"]: rows}
        if set(rows) != {spec["name"] for spec in specs}:
            raise ValueError(f"the inputs are {', '.join(s['name'] for s in specs)}, not {', '.join(map(str, rows))}")
        parts = {spec["name"]: _fit(rows[spec["name"]], spec) for spec in specs}
        counts = {len(part) for part in parts.values()}
        if len(counts) > 1:
            raise ValueError(f"all inputs must have the same number of rows, not {sorted(counts)}")
        dtype = np.dtype([(name, part.dtype, part.shape[1:]) for name, part in parts.items()])
        packed = np.empty(counts.pop(), dtype)
        for name, part in parts.items():
            packed[name] = part
        return packed.tobytes()

    def _has_body(self, event: Mapping[str, Any]) -> bool:
        return event["type"] == "outputs" or super()._has_body(event)

    def _with_body(self, event: dict[str, Any], body: bytes) -> dict[str, Any]:
        if event["type"] != "outputs":
            return super()._with_body(event, body)
        dtypes = {spec["name"]: np.dtype(spec["dtype"]).newbyteorder("<") for spec in self.ready["outputs"]}
        outputs: Arrays = {}
        at = 0
        for name, shape in event["shapes"].items():
            count = int(np.prod(shape, dtype=np.int64))
            outputs[name] = np.frombuffer(body, dtypes[name], count, at).reshape(shape).copy()
            at += count * dtypes[name].itemsize
        fields = {name: value for name, value in event.items() if name != "shapes"}
        return fields | {"outputs": outputs}


class SyncRowStream:
    """:class:`RowStream` for code without an event loop; a background thread runs one. Not thread-safe.

    An interrupted call (``KeyboardInterrupt``) is cancelled; the stream continues.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        key: str | None = None,
        conditions: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        overflow: str = "wait",
        **bounds: Unpack[ReplayBounds],
    ):
        self._make: Callable[[], RowStream] = partial(
            RowStream, url, model=model, key=key, conditions=conditions, options=options, overflow=overflow, **bounds
        )
        self._stream: RowStream | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._thread is not None:
            raise RuntimeError("this stream was opened before: create another one")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_serve, args=(self._loop,), name="row-stream", daemon=True)
        self._thread.start()

        async def opened() -> RowStream:
            stream: RowStream = await self._make().__aenter__()
            return stream

        try:
            self._stream = self._run(opened())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._run(self._open.__aexit__(kind, error, traceback))
        finally:
            self._stop()

    @property
    def ready(self) -> dict[str, Any]:
        """The last ``ready`` frame, which describes the model's inputs and outputs."""
        return self._open.ready

    @property
    def position(self) -> int:
        """Number of rows sent, including those of earlier connections with the same key."""
        return self._open.position

    @property
    def acknowledged(self) -> int:
        """Number of rows that the daemon has written to its disk."""
        return self._open.acknowledged

    def send(self, rows: Rows) -> None:
        """As :meth:`RowStream.send`."""
        self._run(self._open.send(rows))

    def step(self, rows: Rows) -> Arrays:
        """As :meth:`RowStream.step`."""
        return self._run(self._open.step(rows))

    def safe(self, position: int | None = None) -> None:
        """Wait until the first ``position`` rows (default: all sent so far) are acknowledged."""
        self._run(self._open.safe(position))

    def end(self) -> list[dict[str, Any]]:
        """End the stream; returns the unread events, the last of type ``end``."""

        async def rest(stream: RowStream) -> list[dict[str, Any]]:
            await stream.end()
            events: AsyncIterator[dict[str, Any]] = aiter(stream)
            return [event async for event in events]

        return self._run(rest(self._open))

    @property
    def _open(self) -> RowStream:
        if self._stream is None:
            raise StreamError("closed", "the stream is not open: use it in a with block")
        return self._stream

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            if self._loop is None or self._loop.is_closed():
                raise StreamError("closed", "the stream was closed")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except BaseException:
            work.close()
            raise
        try:
            return future.result()
        except CancelledError:
            raise StreamError("closed", "the stream's thread has ended") from None
        except BaseException:
            future.cancel()  # cancels an interrupted call; a call that failed is done already
            raise

    def _stop(self) -> None:
        if self._loop is not None and self._thread is not None:
            with contextlib.suppress(RuntimeError):  # it is closed already
                self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """Run a stream's thread. Once the loop stops, its remaining tasks are cancelled and the loop is closed."""
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.get_loop().run_forever()


def _fit(rows: Any, spec: Mapping[str, Any]) -> NDArray[Any]:
    """[n, *row_shape] in the input's dtype, little-endian. Raises ``ValueError`` for what does not fit, with the
    sentence of a model in process."""
    array = numbers(rows, spec["dtype"], f"input {spec['name']!r}")
    shape = tuple(spec["shape"])
    if array.shape[1:] != shape or array.ndim == 0:
        raise ValueError(
            f"rows of {spec['name']!r} have the shape [n, {', '.join(map(str, shape))}], not {array.shape}"
        )
    return array.astype(np.dtype(spec["dtype"]).newbyteorder("<"), copy=False)


def _listed(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
