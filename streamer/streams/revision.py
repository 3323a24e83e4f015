"""The second pass: finals are heard once more by a recogniser that takes its time, before they are given out.

One :class:`Reviser` serves all streams. What it holds is bounded in number and in seconds of sound, and every piece has
a deadline: whoever is told in the end gets either what was heard or a reason. Its threads are no lanes, and nothing is
run under anybody's lock.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["REASONS", "Heard", "HeardWord", "Reviser", "RevisionJob", "SecondRecogniser"]

log = logging.getLogger(__name__)

Pcm = NDArray[np.int16]

#: Why a final stands as it was. ``late``: the deadline passed. ``full``: no room in the queue, or too many of its
#: stream wait. ``long``: more sound than is kept. ``lost``: its sound was not saved. ``failed``: the recogniser did.
#: ``unsure``: it repeated itself, or did not believe itself. ``stopped``: the daemon was going down.
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
    """What a recogniser made of one piece of sound. ``silence``: probability that nobody speaks. ``logp``: mean log
    probability of its tokens."""

    words: tuple[HeardWord, ...] = ()
    silence: float = 0.0
    logp: float = 0.0


class SecondRecogniser(Protocol):
    """Called from several threads at once. ``rate``: of the sound that it takes, in Hz."""

    rate: int

    def hear(self, sound: NDArray[np.float32]) -> Heard:
        """``sound`` [n] in [-1, 1]. May raise anything: that costs this piece, and no other."""


@dataclass(eq=False)
class RevisionJob:
    """``pcm`` [n] at ``rate`` Hz, empty where there is nothing to hear. ``due``: monotonic time.

    ``done`` is called once, from some thread and without a lock: with what was heard, or ``None`` and one of
    :data:`REASONS`. It must not raise.
    """

    pcm: Pcm
    rate: int
    done: Callable[[Heard | None, str], None]
    due: float = 0.0
    over: bool = field(default=False, init=False)

    @property
    def seconds(self) -> float:
        return len(self.pcm) / self.rate


class Reviser:
    """``recogniser``: of all threads. ``waiting`` pieces and ``seconds`` of sound wait at most, those being heard not
    counted; ``deadline`` in seconds. ``longest``: seconds of sound that one stream may keep for one final. ``observe``
    is told the seconds from the coming of a piece to its answer.
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
        )  # in the order of their deadlines; those that are over go when they are met
        self._seconds = 0.0
        self._closed = False
        names = [(self._work, f"second pass {i}") for i in range(workers)] + [(self._watch, "second pass clock")]
        self._threads = [threading.Thread(target=target, name=name, daemon=True) for target, name in names]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Pieces that nobody hears yet."""
        return len(self._queue)

    @property
    def waiting_seconds(self) -> float:
        return self._seconds

    def submit(self, job: RevisionJob) -> str:
        """Empty: it will be told. Else why not. Never blocks."""
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
        """Nobody wants it any more: it is not told."""
        with self._changed:
            self._finish(job)

    def close(self, timeout: float | None = None) -> bool:
        """All that waits is told ``stopped``. False if a thread did not come back in time."""
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
                heard, reason = Heard(silence=1.0) if not len(job.pcm) else self.recogniser.hear(self._sound(job)), ""
            except Exception as error:  # it is this piece's problem, and not the next one's
                log.error("a final could not be heard again", extra={"error": str(error) or type(error).__name__})
                log.debug("the failure in full", exc_info=error)
                heard, reason = None, "failed"
            with self._changed:
                told = self._finish(job)
            self._observe(monotonic() - begin)
            if told:
                job.done(heard, reason)

    def _sound(self, job: RevisionJob) -> NDArray[np.float32]:
        sound = job.pcm.astype(np.float32) / np.float32(32768)
        if job.rate != self.recogniser.rate:
            import soxr

            sound = np.asarray(soxr.resample(sound, job.rate, self.recogniser.rate), np.float32)
        return sound

    def _watch(self) -> None:
        """Tells those whose time is up, whatever the others do."""
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
                told = self._finish(job)
            if told:
                job.done(None, "late")

    def _finish(self, job: RevisionJob) -> bool:
        """Nobody else tells it. Under the lock; False if somebody did."""
        if job.over:
            return False
        job.over = True
        try:
            self._queue.remove(job)
        except ValueError:
            return True  # it is being heard
        self._seconds -= job.seconds
        return True
