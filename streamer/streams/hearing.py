"""The sound of one stream, kept for the second pass of its finals, and the finals that wait for it.

The session's lock guards it. Word times and the chunks that were run decide which part of the sound belongs to a final,
never the time of arrival: so the part is the same for any division into pieces, and after a restart.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.contract.manifest import Manifest
from streamer.streams.realign import Second, revise
from streamer.streams.revision import Heard, Reviser, RevisionJob
from streamer.streams.snapshot import SavedHearing

__all__ = ["BACKLOG", "MOST_HELD", "PATIENT", "SecondHearing"]

log = logging.getLogger(__name__)

Pcm = NDArray[np.int16]

#: Seconds of a final's own sound before its first word (the first model may have missed some words) and after its last.
BEFORE, AFTER = 1.0, 0.6
#: Seconds of context before and after a final's own sound, where there are more: words there do not belong to the
#: final. With a pause in the middle of development sentences, 30.8 % of the words are wrong with 5 s before and 36.6 %
#: with .3 s, for 1 % more CPU time (python -m bench context).
CONTEXT, BEHIND = 5.0, 0.3
#: A final that comes sooner after its last word than this was cut in the middle of speech: in seconds, and as a share
#: of the pause that ends an utterance.
CUT = 0.5
#: Finals of one stream that may wait. A stream that can wait and has more than :data:`BACKLOG` seconds of sound (a
#: file, not a microphone) pauses while :data:`PATIENT` of its finals wait.
MOST_HELD, PATIENT, BACKLOG = 8, 2, 1.0
#: RMS of the loudest 20 ms, in steps of 16 bits: below it there is nothing to hear.
NOTHING = 8.0


class SecondHearing:
    """``rate`` in Hz: of the model's rows; all positions count these. ``pause``: seconds that end an utterance.
    ``numbers``: the stream's option.

    ``settled(event)`` is called when a held final will not change any more: from any thread, without a lock.
    """

    def __init__(
        self,
        reviser: Reviser,
        rate: int,
        pause: float,
        numbers: str,
        settled: Callable[[dict[str, Any], Second], None],
    ) -> None:
        self._cut = CUT * min(1.0, pause)
        self._reviser, self._rate, self._numbers, self._settled = reviser, rate, numbers, settled
        self._chunks: deque[Pcm] = deque()
        self._begin = self._end = 0  # of what is kept
        self._own = 0  # sound before it belongs to earlier finals; 0: there are none
        self._jobs: list[RevisionJob] = []

    @classmethod
    def of(
        cls, reviser: Reviser | None, manifest: Manifest, memory: Any, settled: Callable[[dict[str, Any], Second], None]
    ) -> SecondHearing | None:
        """The second pass of a stream with that task's memory; ``None``: it has no finals, or refuses the second
        pass."""
        options, rate = getattr(memory, "options", None), manifest.input.sample_rate
        if reviser is None or options is None or not getattr(options, "revise", False) or rate is None:
            return None
        pause = options.endpoint.trailing or options.endpoint.silence or 1.0
        return cls(reviser, rate, pause, options.numbers, settled)

    def keep(self, pcm: Pcm, at: int) -> None:
        """Keep ``pcm`` of the chunk that begins at sample ``at``."""
        if at != self._end:  # behind a gap
            self._chunks.clear()
            self._begin = at
            self._own = max(self._own, at)
        self._chunks.append(pcm.copy())
        self._end = at + len(pcm)
        most = round(self._reviser.longest * self._rate)
        while self._chunks and self._end - self._begin - len(self._chunks[0]) >= most:
            self._begin += len(self._chunks.popleft())

    def ask(self, finals: list[dict[str, Any]], held: int, over: bool) -> list[dict[str, Any]]:
        """The finals that will be settled later. ``held``: the number that wait already; ``over``: the stream ends with
        these."""
        waits: list[dict[str, Any]] = []
        for at, final in enumerate(finals):
            behind = finals[at + 1]["start"] if at + 1 < len(finals) else None if over else -1.0
            reason = self._submit(final, held + len(waits), behind)
            if reason:
                final["revised"] = False
                self._reviser.count(reason)
            else:
                waits.append(final)
        return waits

    def _submit(self, final: dict[str, Any], held: int, behind: float | None) -> str:
        """``behind``: where the next final begins, ``None``: there is none, negative: not known yet. Returns the reason
        why the final was not submitted, empty: it will be settled."""
        rate = self._rate
        first, last = (round(final[edge] * rate) for edge in ("start", "end"))
        room = self._end - last if behind is None or behind < 0 else round(behind * rate) - last
        cut = behind is not None and room < self._cut * rate
        earlier = self._own
        begin = max(earlier, first - round(BEFORE * rate))
        end = min(self._end, last if cut else last + min(room, round(AFTER * rate)))
        self._own = max(self._own, end)
        if end - begin > self._reviser.longest * rate:
            return "long"
        if end <= begin or first < self._begin:
            return "lost"
        begin, right = max(begin, self._begin), min(self._end, end + round(BEHIND * rate))
        # without an earlier final there is only a pause to hear, which Whisper may take for a part of the first word
        context = CONTEXT if earlier and earlier > begin - round(CONTEXT * rate) else BEHIND
        longest = round(self._reviser.longest * rate)
        left = max(self._begin, min(begin, right - longest), begin - round(context * rate))
        if held >= MOST_HELD:
            return "full"
        pcm = np.concatenate(self._chunks)[left - self._begin : right - self._begin]
        words = [dict(word) for word in final["words"]]
        span = (begin / rate, end / rate)
        if loudest(pcm[begin - left :], rate) < NOTHING:
            pcm = pcm[:0]

        def place(heard: Heard) -> Second:
            return revise(heard, words, left / rate, span, self._numbers)

        def done(heard: Heard | None, reason: str) -> None:
            second = Second((), "", reason)
            if heard is not None:
                try:
                    second = place(heard)
                except Exception:  # any result of the recogniser may fail here, and the stream continues
                    log.exception("what was heard again could not be put on the time line")
                    second = Second((), "", "failed")
            self._reviser.count(second.reason or ("revised" if second.words else "silent"))
            self._settled(final, second)

        job = RevisionJob(pcm, rate, done, begin - left, lambda heard: bool(place(heard).words))
        self._jobs = [other for other in self._jobs if not other.over]
        if not (reason := self._reviser.submit(job)):
            self._jobs.append(job)
        return reason

    def drop(self) -> None:
        """Cancel the waiting finals."""
        for job in self._jobs:
            self._reviser.drop(job)
        self._jobs.clear()

    def save(self, whole: bool) -> SavedHearing:
        """Not ``whole``: without the sound, which is long. Then the next final keeps the first model's words."""
        kept = np.concatenate(self._chunks) if whole and self._chunks else np.zeros(0, np.int16)
        return SavedHearing(kept, self._own)

    def load(self, saved: SavedHearing, end: int) -> None:
        """``end``: the sample at which the stream continues."""
        self._own = saved.own
        self._begin, self._end = end - len(saved.pcm), end
        self._chunks = deque([saved.pcm] if len(saved.pcm) else [])


def loudest(pcm: Pcm, rate: int) -> float:
    """RMS of the loudest 20 ms."""
    size = max(1, rate // 50)
    whole = pcm[: len(pcm) - len(pcm) % size].astype(np.float64).reshape(-1, size)
    return float(np.sqrt(np.maximum(0, (whole**2).mean(axis=1) - whole.mean(axis=1) ** 2).max(initial=0.0)))
