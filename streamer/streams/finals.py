"""Written finals: numbers in digits, punctuation and capitals, for the streams that ask.

Wraps the transcriber's task. The options ``numbers`` and ``text`` belong to a stream; the finals of one batch are
rewritten at once. Partials do not change, and neither does a final whose text has capitals or punctuation already: a
recogniser that writes them, or a second pass, knows better.

If one of the models fails, the final keeps its spoken words, and the stream continues.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.streams.captions import Captioner, CaptionReading, Labels, captioner
from streamer.streams.numbers import Formatter, Piece, formatter
from streamer.tasks import Event, Task, Transcription, Word
from streamer.tasks.marks import is_known, is_written
from streamer.tasks.snapshot import pack, unpack
from streamer.tasks.transcribe.options import TranscribeStreamOptions

__all__ = ["WrittenFinals"]

log = logging.getLogger(__name__)

#: Prefix of the saved memory of a stream with punctuation; the memory of a plain task never has it.
MARK = b"\0finals"


@dataclass(slots=True)
class FinalsMemory:
    """The memory of a stream with punctuation: the transcriber's, and the captioner's state."""

    task: Any
    reading: CaptionReading

    @property
    def options(self) -> TranscribeStreamOptions:
        options: TranscribeStreamOptions = self.task.options
        return options


@dataclass(slots=True)
class Final:
    """A final to rewrite: its position in the batch, and the stream's options. ``labels`` ``None``: not known."""

    row: int
    at: int
    event: Transcription
    words: list[str]
    pieces: list[Piece]
    labels: Labels | None = None


class WrittenFinals:
    """A transcriber's task whose streams may ask for ``numbers`` and ``text`` as ``written``.

    ``formatter_of`` and ``captioner_of`` are called when the first stream asks, and raise ``ValueError`` where a model
    is missing.
    """

    def __init__(
        self,
        task: Task,
        formatter_of: Callable[[], Formatter] = formatter,
        captioner_of: Callable[[], Captioner] = captioner,
    ) -> None:
        self._task, self._formatter_of, self._captioner_of = task, formatter_of, captioner_of

    def open(self, options: Mapping[str, Any]) -> Any:
        memory = self._task.open(options)
        if memory.options.numbers == "written":
            self._formatter_of()  # a missing model raises here, not at the first final
        if memory.options.text == "written":
            self._captioner_of()
            return FinalsMemory(memory, CaptionReading())
        return memory

    def step(
        self, memories: Sequence[Any], outputs: Mapping[str, NDArray[np.generic]], steps: Sequence[int]
    ) -> Sequence[Sequence[Event]]:
        return self._written(memories, self._task.step([_own(memory) for memory in memories], outputs, steps))

    def copy(self, memory: Any) -> Any:
        if not isinstance(memory, FinalsMemory):
            return self._task.copy(memory)
        return FinalsMemory(
            self._task.copy(memory.task), replace(memory.reading)
        )  # a reading is replaced, never changed in place

    def finish(self, memory: Any) -> Sequence[Event]:
        (events,) = self._written([memory], [self._task.finish(_own(memory))])
        return events

    def save(self, memory: Any) -> bytes:
        if not isinstance(memory, FinalsMemory):
            return self._task.save(memory)
        inner = np.frombuffer(self._task.save(memory.task), np.uint8)
        states = memory.reading.states
        facts = {"begins": memory.reading.begins, "states": sorted(states)}
        return MARK + pack(facts, [inner, *(states[name] for name in sorted(states))])

    def load(self, data: bytes) -> Any:
        if not data.startswith(MARK):
            return self._task.load(data)
        facts, (inner, *arrays) = unpack(data[len(MARK) :])
        try:
            states = dict(zip(map(str, facts["states"]), arrays, strict=True))
            reading = CaptionReading(states, bool(facts["begins"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a memory of this task: {error!r}") from error
        return FinalsMemory(self._task.load(inner.tobytes()), reading)

    # -- one batch -----------------------------------------------------------------------------------------------------

    def _written(self, memories: Sequence[Any], events: Sequence[Sequence[Event]]) -> Sequence[Sequence[Event]]:
        finals = [
            _final(row, at, event)
            for row, (memory, own) in enumerate(zip(memories, events, strict=True))
            if own and (isinstance(memory, FinalsMemory) or memory.options.numbers == "written")
            for at, event in enumerate(own)
            if isinstance(event, Transcription) and event.type == "final" and event.text
        ]
        if not finals:
            return events
        self._mark(finals, memories)
        self._count(finals, memories)
        written = [list(own) for own in events]
        for final in finals:
            memory = memories[final.row]
            written[final.row][final.at] = self._event(final, memory if isinstance(memory, FinalsMemory) else None)
        return written

    def _mark(self, finals: Sequence[Final], memories: Sequence[Any]) -> None:
        """Labels for the words of those streams that asked for punctuation."""
        asked: dict[int, list[Final]] = {}
        for final in finals:
            if not isinstance(memory := memories[final.row], FinalsMemory):
                continue
            if is_written(text := final.event.text):
                memory.reading.begins = text.endswith((".", "?", "!"))
            elif is_known(text):
                asked.setdefault(final.row, []).append(final)
        if not asked:
            return
        words = [[final.words for final in own] for own in asked.values()]
        try:
            found = self._captioner_of().read(words, [memories[row].reading for row in asked])
        except Exception:  # the stream continues without punctuation
            log.exception("finals could not be punctuated")
            return
        for own, labels in zip(asked.values(), found, strict=True):
            for final, label in zip(own, labels, strict=True):
                final.labels = label

    def _count(self, finals: Sequence[Final], memories: Sequence[Any]) -> None:
        """Digits for the words of those streams that asked for them."""
        asked = [
            final
            for final in finals
            # the parts of a word with a space can't be assigned
            if memories[final.row].options.numbers == "written" and len(final.event.words) in (0, len(final.words))
        ]
        if not asked:
            return
        try:
            found = self._formatter_of().write([final.words for final in asked])
        except Exception:  # the stream continues with the number in words
            log.exception("numbers could not be written in digits")
            return
        for final, pieces in zip(asked, found, strict=True):
            final.pieces = pieces

    def _event(self, final: Final, memory: FinalsMemory | None) -> Transcription:
        event, texts = final.event, [text for _, _, text in final.pieces]
        written: list[str] | None = None
        if memory is not None:
            written = self._marked(final, memory.reading) if final.labels is not None else texts
        words = _words(event, final.pieces, written) if event.words else ()
        return replace(event, text=" ".join(texts if written is None else written), words=words)

    def _marked(self, final: Final, reading: CaptionReading) -> list[str]:
        """The written form of each piece. A number takes the mark of its last word."""
        assert final.labels is not None
        task, marks, cases = self._captioner_of().task, final.labels.marks, final.labels.cases
        found: list[str] = []
        for begin, end, text in final.pieces:
            last = end - 1
            as_said = end - begin == 1 and text == final.words[begin]
            case = cases[last] if as_said else 0
            found += task.written([text], [marks[last]], [case], reading.begins and as_said)
            reading.begins = task.ends(marks[last])
        return found


def _own(memory: Any) -> Any:
    return memory.task if isinstance(memory, FinalsMemory) else memory


def _final(row: int, at: int, event: Transcription) -> Final:
    words = event.text.split(" ")
    return Final(row, at, event, words, [(i, i + 1, word) for i, word in enumerate(words)])


def _words(event: Transcription, pieces: Sequence[Piece], written: Sequence[str] | None) -> tuple[Word, ...]:
    """Written words with the times of their spoken words; the confidence is the lowest of these words."""
    if pieces[-1][1] != len(event.words):  # some word has spaces in it
        return event.words if written is None else _grouped(event.words, written)
    found: list[Word] = []
    for place, (begin, end, text) in enumerate(pieces):
        own = event.words[begin:end]
        least = min(word.confidence for word in own)
        form = None if written is None else own[0].written or written[place]
        found.append(Word(text, own[0].start, own[-1].end, least, form))
    return tuple(found)


def _grouped(words: Sequence[Word], written: Sequence[str]) -> tuple[Word, ...]:
    """``written`` distributed over words, some of which have spaces; empty if the counts do not fit."""
    counts = [len(word.word.split(" ")) for word in words]
    if sum(counts) != len(written):
        return tuple(words)
    parts = iter(written)
    return tuple(
        replace(word, written=" ".join(next(parts) for _ in range(count)))
        for word, count in zip(words, counts, strict=True)
    )
