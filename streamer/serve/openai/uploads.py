"""Transcribes whole recordings by ordinary streams.

A recording is decoded like a file, in a thread, half a second at a time and no faster than its stream takes it. The
stream is like any other, so an upload takes only its bytes of memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from streamer.serve.openai.errors import OpenAIError
from streamer.serve.speech import SpeechStream, transcriber
from streamer.sources import SourceError
from streamer.sources.files import AudioFile
from streamer.sources.memory import MemorySource

if TYPE_CHECKING:
    from streamer.serve.openai.requests import TranscriptionRequest
    from streamer.serve.stream.connections import StreamConnections

__all__ = ["Uploads"]

T = TypeVar("T")
#: Most channels. A thread decodes half a second of all of them at a time, and a few bytes may hold thousands of silent
#: channels.
MAX_CHANNELS = 32


class Uploads:
    """The current uploads: ``max_uploads`` at most, each with a thread while a part of it is decoded."""

    def __init__(self, streams: StreamConnections) -> None:
        self._streams, self._settings = streams, streams.settings
        self._threads = ThreadPoolExecutor(self._settings.max_uploads, thread_name_prefix="upload")
        self._count = 0
        streams.metrics.uploads.set_function(lambda: self._count)

    def model(self, name: str | None) -> str:
        """The model of that name, or the one that OpenAI's own names stand for. Raises :class:`Refused`."""
        return transcriber(self._streams.registry, None if name in self._settings.openai_aliases else name)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place for one upload. Raises :class:`OpenAIError` if there is none."""
        if self._count >= self._settings.max_uploads:
            self._streams.metrics.refused_requests.labels("uploads").inc()
            text = f"{self._count} recordings are being transcribed already (max_uploads): try again"
            raise OpenAIError(503, text, code="uploads")
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1

    async def transcribe(
        self,
        request: TranscriptionRequest,
        data: memoryview,
        name: str,
        take: Callable[[dict[str, Any]], None],
        owner: str,
    ) -> float:
        """Transcribe a recording, within a :meth:`place`; returns its seconds. ``take`` gets the events in order.
        ``owner``: of the stream.

        Raises :class:`OpenAIError` and :class:`Refused`.
        """
        model = self.model(request.model)
        try:
            async with asyncio.timeout(self._settings.upload_seconds):
                return await self._run(model, request, data, name, take, owner)
        except TimeoutError:
            late = f"is not transcribed after {self._settings.upload_seconds:g} s (upload_seconds)"
            raise OpenAIError(413, f"{name} {late}: send it in parts", param="file") from None
        except SourceError as error:
            raise OpenAIError(400, str(error), param="file", code="invalid_file") from error

    async def _run(
        self,
        model: str,
        request: TranscriptionRequest,
        data: memoryview,
        name: str,
        take: Callable[[dict[str, Any]], None],
        owner: str,
    ) -> float:
        def on_events(events: list[dict[str, Any]]) -> None:
            for event in events:
                take(event)

        sound = await self._in_thread(lambda: AudioFile(None, source=MemorySource(data), name=name), AudioFile.close)
        stream: SpeechStream | None = None
        try:
            stream = SpeechStream(
                self._streams, on_events, model=model, sample_rate=sound.rate, options=request.options, owner=owner
            )
            if sound.channels > MAX_CHANNELS:
                raise OpenAIError(400, f"{name} has {sound.channels} channels, {MAX_CHANNELS} at most", param="file")
            most = self._settings.max_upload_sound_seconds
            blocks = sound.blocks()

            def step() -> bool:  # the resampler runs in the thread, too
                block = next(blocks, None)
                if block is not None:
                    stream.push(block)
                return block is not None

            while await self._in_thread(step, interrupt=sound.interrupt):
                if stream.seconds > most:
                    text = f"{name} is longer than {most:g} s (max_upload_sound_seconds): send it in parts"
                    raise OpenAIError(413, text, param="file")
                await stream.room()
            await stream.end()
            return stream.seconds
        finally:
            self._threads.submit(sound.close)
            if stream is not None:
                stream.close()
                await stream.freed()  # a client that gets its answer may send the next recording at once

    async def _in_thread(
        self,
        call: Callable[[], T],
        undo: Callable[[T], None] = lambda found: None,
        interrupt: Callable[[], None] = lambda: None,
    ) -> T:
        """Run ``call`` in a thread, and wait for its end even when cancelled: the objects that it uses must not be
        closed before. On cancellation ``interrupt`` is called, and ``undo`` gets a result that nobody takes."""
        work = asyncio.get_running_loop().run_in_executor(self._threads, call)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            interrupt()
            await asyncio.wait([work])
            if work.exception() is None:
                undo(work.result())
            raise
