"""The second pass: a slower recogniser decodes finals again before they are sent.

One :class:`Reviser` serves all streams. Its queue is bounded in number and in seconds of sound, and every job has a
deadline: its ``done`` gets either a result or a reason. Its threads are separate from the lanes, and hold no lock while
the recogniser runs.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["REASONS", "Heard", "HeardWord", "Reviser", "RevisionJob", "SecondRecogniser"]

log = logging.getLogger(__name__)

Pcm = NDArray[np.int16]

#: Why a final keeps the first model's words. ``late``: the deadline passed. ``full``: no room in the queue, or too many
#: finals of its stream wait. ``long``: more sound than is kept. ``lost``: its sound was not saved. ``failed``: the
#: recogniser raised. ``unsure``: the result repeats itself, or has a low probability. ``stopped``: the daemon was going
#: down.
REASONS = ("late", "full", "long", "lost", "failed", "unsure", "stopped")


@dataclass(frozen=True, slots=True)
class HeardWord:
    """``text`` as it is written, with marks and capitals; seconds since the sound's start; ``confidence`` in [0, 1]."""

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Heard:
    """A recogniser's result for one piece of sound. ``silence``: probability of no speech. ``logp``: mean log
    probability of its tokens."""

    words: tuple[HeardWord, ...] = ()
    silence: float = 0.0
    logp: float = 0.0

    def later(self, seconds: float) -> Heard:
        """The same with all words ``seconds`` later."""
        words = (replace(word, start=word.start + seconds, end=word.end + seconds) for word in self.words)
        return replace(self, words=tuple(words))


class SecondRecogniser(Protocol):
    """Called from several threads at once. ``rate``: of the sound that it takes, in Hz."""

    rate: int

    def hear(self, sound: NDArray[np.float32]) -> Heard:
        """Decode ``sound`` [n] in [-1, 1]. It may raise any exception, which fails this piece alone."""


@dataclass(eq=False)
class RevisionJob:
    """``pcm`` [n] at ``rate`` Hz, empty for silence; its first ``context`` samples come before the final. If the whole
    can't be decoded, or ``good`` is false for the result, the rest is decoded alone: no final suffers from what was
    said before it. ``due``: monotonic time.

    ``done`` is called once, from any thread and without a lock: with the result, or ``None`` and one of
    :data:`REASONS`. It must not raise.
    """

    pcm: Pcm
    rate: int
    done: Callable[[Heard | None, str], None]
    context: int = 0
    good: Callable[[Heard], bool] = lambda heard: True
    due: float = 0.0
    over: bool = field(default=False, init=False)

    @property
    def seconds(self) -> float:
        return len(self.pcm) / self.rate


class Reviser:
    """``recogniser``: shared by all threads. At most ``waiting`` jobs and ``seconds`` of sound wait, not counting those
    being decoded; ``deadline`` in seconds. ``longest``: seconds of sound that one stream may keep for one final.
    ``observe`` gets the seconds from the submission of a job to its answer.
    """

    def __init__(
        self,
        recogniser: SecondRecogniser,
        *,
        workers: int = 1,
        waiting: int = 64,
        seconds: float = 300.0,
        deadline: float = 10.0,
        longest: float = 30.0,
        count: Callable[[str], None] = lambda outcome: None,
        observe: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self.recogniser, self.deadline, self.longest, self.count = recogniser, deadline, longest, count
        self._most, self._most_seconds, self._observe = waiting, seconds, observe
        self._changed = threading.Condition()
        self._queue: deque[RevisionJob] = deque()
        self._open: deque[RevisionJob] = (
            deque()
        )  # in the order of their deadlines; finished jobs are removed when they are reached
        self._seconds = 0.0
        self._closed = False
        names = [(self._work, f"second pass {i}") for i in range(workers)] + [(self._watch, "second pass clock")]
        self._threads = [threading.Thread(target=target, name=name, daemon=True) for target, name in names]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Jobs that no thread has taken yet."""
        return len(self._queue)

    @property
    def waiting_seconds(self) -> float:
        return self._seconds

    def submit(self, job: RevisionJob) -> str:
        """Queue a job; returns the reason if it is refused, empty: its ``done`` will be called. Never blocks."""
        with self._changed:
            if self._closed:
                return "stopped"
            if len(self._queue) >= self._most or self._seconds + job.seconds > self._most_seconds:
                return "full"
            job.due = monotonic() + self.deadline
            self._queue.append(job)
            self._open.append(job)
            self._seconds += job.seconds
            self._changed.notify_all()
        return ""

    def drop(self, job: RevisionJob) -> None:
        """Cancel a job: its ``done`` is not called."""
        with self._changed:
            self._finish(job)

    def close(self, timeout: float | None = None) -> bool:
        """End all waiting jobs with ``stopped``. False if a thread did not end in time."""
        with self._changed:
            self._closed = True
            left = [job for job in self._open if self._finish(job)]
            self._changed.notify_all()
        for job in left:
            job.done(None, "stopped")
        until = None if timeout is None else monotonic() + timeout
        for thread in self._threads:
            thread.join(None if until is None else max(0.0, until - monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    # -- threads -----------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if self._closed:
                    return
                job = self._queue.popleft()
                self._seconds -= job.seconds
            begin = job.due - self.deadline
            try:
                heard, reason = self._hear(job) if len(job.pcm) else Heard(silence=1.0), ""
            except Exception as error:  # any error fails this job alone
                log.error("a final could not be heard again", extra={"error": str(error) or type(error).__name__})
                log.debug("the failure in full", exc_info=error)
                heard, reason = None, "failed"
            with self._changed:
                first = self._finish(job)
            self._observe(monotonic() - begin)
            if first:
                job.done(heard, reason)

    def _hear(self, job: RevisionJob) -> Heard:
        if job.context:
            try:
                heard = self.recogniser.hear(self._sound(job.pcm, job.rate))
                if job.good(heard) or job.over:
                    return heard
            except Exception as error:  # the earlier sound may be the reason
                log.debug("a final could not be heard with the sound before it", exc_info=error)
        alone = self.recogniser.hear(self._sound(job.pcm[job.context :], job.rate))
        return alone.later(job.context / job.rate)

    def _sound(self, pcm: Pcm, rate: int) -> NDArray[np.float32]:
        sound = pcm.astype(np.float32) / np.float32(32768)
        if rate != self.recogniser.rate:
            import soxr

            sound = np.asarray(soxr.resample(sound, rate, self.recogniser.rate), np.float32)
        return sound

    def _watch(self) -> None:
        """End jobs whose deadline has passed, even if all workers hang."""
        while True:
            with self._changed:
                while self._open and self._open[0].over:
                    self._open.popleft()
                if self._closed:
                    return
                if not self._open:
                    self._changed.wait()
                    continue
                job = self._open[0]
                if (left := job.due - monotonic()) > 0:
                    self._changed.wait(left)
                    continue
                first = self._finish(job)
            if first:
                job.done(None, "late")

    def _finish(self, job: RevisionJob) -> bool:
        """Claim the right to call a job's ``done``; False if another thread has it. Called under the lock."""
        if job.over:
            return False
        job.over = True
        try:
            self._queue.remove(job)
        except ValueError:
            return True  # a worker has it
        self._seconds -= job.seconds
        return True
