"""Classification of texts, one stream at a time, in this process: a text has no sample rate, and so no session."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from streamer.engine.model import Model, ModelError
from streamer.engine.stepper import Stepper
from streamer.tasks import Event, TaskError
from streamer.tasks.classify import Classify

__all__ = ["TextClassifier"]


class TextClassifier:
    """Raises :class:`ModelError` for a file that does not classify texts."""

    def __init__(self, model: Model) -> None:
        manifest = model.manifest
        if manifest.task != "classify":
            raise ModelError(f"{model.path}: is for the task {manifest.task}, it classifies nothing")
        try:
            self.task = Classify(manifest)
        except TaskError as error:
            raise ModelError(f"{model.path}: {error}") from error
        if not self.task.options.text:
            raise ModelError(f"{model.path}: takes no text")
        self.model = model

    def events(self, pieces: Iterable[bytes]) -> Iterator[Event]:
        """One text in UTF-8, cut anywhere; its events as they come. A text that has ended is padded to a chunk."""
        manifest = self.model.manifest
        memory, stepper = self.task.open({}), Stepper(self.model)
        waiting = bytearray()

        def run(data: bytes) -> list[Event]:
            chunk = np.zeros((1, manifest.chunk), np.uint8)
            chunk[0, : len(data)] = np.frombuffer(data, np.uint8)
            return self.task.step([memory], stepper.step(chunk), [-(-len(data) // manifest.hop)])[0]

        for piece in pieces:
            waiting += piece
            while len(waiting) >= manifest.chunk:
                data = bytes(waiting[: manifest.chunk])
                del waiting[: manifest.chunk]
                yield from run(data)
        if waiting:
            yield from run(bytes(waiting))
        yield from self.task.finish(memory)
