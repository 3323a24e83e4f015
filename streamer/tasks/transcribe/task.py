"""The task ``transcribe``: log-probabilities in, transcripts with word times and confidence out.

The log-probabilities have one of two shapes. [steps, tokens] is CTC, which a decoder here turns into tokens. [steps,
symbols, tokens] is a transducer that searches inside its graph: the best token of each row is the token that it chose.
A step may have several tokens, and repeats are not collapsed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from streamer.contract.manifest import MAX_MODEL_BYTES, Manifest
from streamer.tasks.base import TaskError, Transcription
from streamer.tasks.snapshot import pack, unpack
from streamer.tasks.transcribe.beam import Beam
from streamer.tasks.transcribe.endpoint import Endpoints, Rules, silence_runs
from streamer.tasks.transcribe.greedy import Greedy
from streamer.tasks.transcribe.hotwords import Biased
from streamer.tasks.transcribe.letters import Letters
from streamer.tasks.transcribe.lexicon import Lexicon, parse, pronounced, trivial
from streamer.tasks.transcribe.ngram import NGram
from streamer.tasks.transcribe.options import Decoder, TranscribeOptions, TranscribeStreamOptions, parse_stream_options
from streamer.tasks.transcribe.search import Search, Steps, Unit
from streamer.tasks.transcribe.transcript import Known, Transcript

__all__ = ["Transcribe", "TranscribeMemory", "decode_all"]

#: Settings, hotword phrases, and the bonus of their words.
SearchKey = tuple[Decoder, tuple[str, ...], float]


@dataclass(slots=True, eq=False)
class TranscribeMemory:
    """One stream. ``steps``: decoded so far; ``begun``: the first step of the current utterance; ``silent``: length of
    the silence at the end, in steps."""

    options: TranscribeStreamOptions
    rules: Rules
    search: Search
    state: Any
    steps: int = 0
    begun: int = 0
    silent: int = 0
    final_end: float = 0.0  # end of the last final, in seconds
    bad: int = 0  # invalid rows, which are decoded as blank
    shown: str = ""  # text of the utterance's last partial
    known: Known = field(default_factory=dict)  # a cache of words of this utterance's partials


class Transcribe:
    """Shared by all streams of one model (:class:`streamer.tasks.Task`); its first output: [N, T, V] log-posteriors, or
    a transducer's [N, T, S, V]. ``symbols`` is S, or 1. For a transducer, a "step" in this module is one of its T * S
    rows."""

    def __init__(self, manifest: Manifest, max_bytes: int = MAX_MODEL_BYTES) -> None:
        self._max_bytes = max_bytes
        try:
            self.options = TranscribeOptions.model_validate_json(json.dumps(manifest.options))
        except ValidationError as error:
            problems = "\n".join(f"  options.{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors())
            raise TaskError(f"model {manifest.name!r} can't transcribe:\n{problems}\nexport the model again") from error
        if not manifest.chunk_seconds:
            raise TaskError(f"model {manifest.name!r} can't transcribe: its input has no clock")
        tokens = self.options.tokens
        shape = manifest.outputs[0].shape
        if len(shape) not in (2, 3) or shape[-1] != len(tokens):
            raise TaskError(
                f"model {manifest.name!r} can't transcribe: output {manifest.outputs[0].name!r} has the shape {shape}, "
                f"[steps, {len(tokens)} tokens] is needed, of a transducer [steps, symbols, {len(tokens)} tokens]"
            )
        self.transducer, self.symbols = len(shape) == 3, shape[1] if len(shape) == 3 else 1
        self.output = manifest.outputs[0].name
        rate = manifest.input.sample_rate  # None for pictures, whose columns have a duration
        seconds = manifest.hop / rate if rate else manifest.hop * (manifest.input.step_seconds or 0.0)
        self.step_seconds = seconds / self.symbols
        self.boundary = _boundary(self.options)
        self.transcript = Transcript(
            boundary=None if self.boundary is None else tokens[self.boundary],
            joined=self.options.units == "characters" and self.options.lexicon is None,
            pieces=self.options.units == "pieces" and self.options.lexicon is None,
            step_seconds=self.step_seconds,
            delay=self.options.delay_steps * self.symbols,
            times=self.options.times,
            confidence=self.options.confidence,
            lm=self._lm if self.options.confidence is not None and self.options.lexicon is not None else None,
        )
        self._searches: WeakValueDictionary[SearchKey, Search] = WeakValueDictionary()
        try:  # an invalid lexicon fails here, not when the first stream opens
            self._default = self._search(self.options.decoder)
        except ValueError as error:
            raise TaskError(f"model {manifest.name!r} can't transcribe: {error}; export the model again") from error

    # -- the protocol ------------------------------------------------------------------------------------------------

    def open(self, options: Mapping[str, Any]) -> TranscribeMemory:
        parsed = parse_stream_options(options, self.options)
        search = self._search(parsed.decoder, parsed.hotwords, parsed.hotword_bonus)
        return TranscribeMemory(parsed, Rules.of(parsed.endpoint, self.step_seconds), search, search.open())

    def step(
        self, memories: Sequence[TranscribeMemory], outputs: Mapping[str, NDArray[np.generic]], steps: Sequence[int]
    ) -> list[list[Transcription]]:
        real = np.asarray(steps, np.int64) * self.symbols
        raw = outputs[self.output]
        logp, best, bad = _distributions(
            raw.reshape(len(raw), raw.shape[1] * self.symbols, raw.shape[-1]), self.options.blank
        )
        events: list[list[Transcription]] = [[] for _ in memories]
        groups: dict[Search, list[int]] = {}
        for row, memory in enumerate(memories):
            groups.setdefault(memory.search, []).append(row)
        if bad is not None:
            for row in np.flatnonzero(bad.any(axis=1)).tolist():
                memories[row].bad += int(bad[row, : real[row]].sum())
        for search, rows in groups.items():
            all_rows = len(rows) == len(memories)
            found = self._decode(
                search,
                [memories[row] for row in rows],
                logp[: len(rows)] if all_rows else logp[rows],
                best[: len(rows)] if all_rows else best[rows],
                real if all_rows else real[rows],
            )
            for row, result in zip(rows, found, strict=True):
                events[row] = result
        return events

    def copy(self, memory: TranscribeMemory) -> TranscribeMemory:
        return replace(memory, state=memory.search.copy(memory.state))  # both may use the cache known

    def finish(self, memory: TranscribeMemory) -> list[Transcription]:
        return self._final(memory, memory.search.finish(memory.state))

    def save(self, memory: TranscribeMemory) -> bytes:
        state, arrays = memory.search.dump(memory.state)
        counts = [memory.steps, memory.begun, memory.silent, memory.bad]
        facts = {
            "options": memory.options.model_dump(),
            "counts": counts,
            "shown": memory.shown,
            "said": memory.final_end,
            "state": state,
        }
        return pack(facts, arrays)

    def load(self, data: bytes) -> TranscribeMemory:
        facts, arrays = unpack(data)
        try:
            options = parse_stream_options(facts["options"], self.options)
            steps, begun, silent, bad = (int(count) for count in facts["counts"])
            search = self._search(options.decoder, options.hotwords, options.hotword_bonus)
            state = search.restore(facts["state"], arrays)
            rules = Rules.of(options.endpoint, self.step_seconds)
            end, shown = float(facts.get("said", 0.0)), str(facts["shown"])
            return TranscribeMemory(options, rules, search, state, steps, begun, silent, end, bad, shown)
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"not a memory of this task: {error!r}") from error

    # -- one batch ---------------------------------------------------------------------------------------------------

    def _decode(
        self, search: Search, memories: list[TranscribeMemory], logp: NDArray[np.float32], best: Steps, steps: Steps
    ) -> list[list[Transcription]]:
        """The events of each stream of one search. ``best`` [N, T]: the likeliest token of each row of ``logp``
        [N, T, V]; ``steps`` [N]: how many rows count."""
        events: list[list[Transcription]] = [[] for _ in memories]
        if not steps.any():
            return events
        weighed = search.weigh(logp)
        if weighed is not logp:
            logp, best = weighed, weighed.argmax(axis=2)
        states = [memory.state for memory in memories]
        origin = np.array([memory.steps for memory in memories], np.int64)
        begun = np.array([memory.begun for memory in memories], np.int64)
        silent = best == self.options.blank
        if self.boundary is not None:
            silent |= best == self.boundary
        runs = silence_runs(silent, np.array([memory.silent for memory in memories], np.int64))
        spoken = (origin + 1 - begun)[:, None] + np.arange(logp.shape[1])

        def ended(row: int, step: int, units: list[Unit]) -> None:
            events[row] += self._final(memories[row], units)
            memories[row].begun = int(origin[row]) + step + 1

        rules = [memory.rules for memory in memories]
        checks = Endpoints(search, states, rules, runs, search.busy(logp), spoken, ended)
        search.advance(states, logp, steps, origin, checks)
        for row, (memory, length) in enumerate(zip(memories, steps.tolist(), strict=True)):
            if length:
                memory.steps += length
                memory.silent = int(runs[row, length - 1])
                if search.news(memory.state) and memory.options.partials:
                    events[row] += self._partial(search, memory)
        return events

    # -- events ------------------------------------------------------------------------------------------------------

    def _final(self, memory: TranscribeMemory, units: list[Unit]) -> list[Transcription]:
        event = self.transcript.event(
            "final", units, len(units), memory.begun, memory.options.words, memory.known, memory.final_end
        )
        memory.known.clear()
        if event.text:
            memory.final_end = event.end
        shown, memory.shown = memory.shown, ""
        # An empty final withdraws a partial whose words were all dropped.
        return [event] if event.text or (shown and memory.options.partials) else []

    def _partial(self, search: Search, memory: TranscribeMemory) -> list[Transcription]:
        units, stable = search.units(memory.state), search.stable(memory.state)
        event = self.transcript.event(
            "partial", units, stable, memory.begun, memory.options.words, memory.known, memory.final_end
        )
        if event.text == memory.shown:
            return []
        memory.shown = event.text
        return [event]

    def _search(self, decoder: Decoder, hotwords: Sequence[str] = (), bonus: float = 0.0) -> Search:
        """The search with these settings. All streams with these settings share it; it is dropped with the last one.

        Raises ``ValueError`` for settings that the model does not support.
        """
        if self.transducer and (decoder.kind != "greedy" or decoder.blank_penalty):
            raise ValueError(
                "a transducer searches in its own graph: decoder.kind must be greedy, without blank_penalty"
            )
        key = (decoder, tuple(hotwords), bonus if hotwords else 0.0)
        found = self._searches.get(key)
        if found is None:
            if hotwords:
                found = self._with_hotwords(decoder, hotwords, bonus)
            elif decoder.kind == "greedy":
                found = Greedy(
                    self.options.tokens, self.options.blank, self.boundary, decoder.blank_penalty,
                    collapse=not self.transducer,
                )  # fmt: skip
            else:
                found = Beam(decoder, self._lexicon, self._lm, self.options.blank)
            self._searches[key] = found
        return found

    def _with_hotwords(self, decoder: Decoder, hotwords: Sequence[str], bonus: float) -> Beam:
        if decoder.kind != "beam" or self.options.lexicon is None or decoder.lm_weight == 0:
            raise ValueError("hotwords need a model with a lexicon, its decoder beam, and an lm_weight above 0")
        phrases, new = pronounced(hotwords, self._lexicon, self._letters, self.options.tokens)
        lm = Biased(self._lm, phrases, bonus)
        return Beam(decoder, self._lexicon.with_words(new, lm), lm, self.options.blank)

    @property
    def hotword_sets(self) -> int:
        """The number of different hotword lists in use."""
        return len({phrases for _, phrases, _ in list(self._searches) if phrases})

    @cached_property
    def _letters(self) -> Letters | None:
        return None if self.options.letters is None else Letters(self.options.letters.unpack())

    @cached_property
    def _lm(self) -> NGram | None:
        return None if self.options.lm is None else NGram(self.options.lm.unpack())

    @cached_property
    def _lexicon(self) -> Lexicon:
        if self.options.lexicon is None:
            return Lexicon(trivial(self.options.tokens, self.options.blank), len(self.options.tokens), None, self._lm)
        text = str(self.options.lexicon.unpack(), "utf-8")
        entries = parse(text, self.options.tokens, self._max_bytes)
        return Lexicon(entries, len(self.options.tokens), self.boundary, self._lm, self._max_bytes)


def decode_all(
    task: Transcribe,
    log_probs: Sequence[NDArray[np.float32]],
    options: Mapping[str, Any] | None = None,
    batch: int = 64,
) -> list[str]:
    """Decode whole recordings ``[T_i, V]``, of a transducer ``[T_i, S, V]``, as live streams are decoded, with
    endpoints. Returns one text for each recording; for evaluation."""
    texts: list[str] = [""] * len(log_probs)
    order = sorted(range(len(log_probs)), key=lambda i: len(log_probs[i]))
    for first in range(0, len(order), batch):
        rows = order[first : first + batch]
        lengths = [len(log_probs[i]) for i in rows]
        padded = np.zeros((len(rows), max(lengths), *log_probs[rows[0]].shape[1:]), np.float32)
        for row, i in enumerate(rows):
            padded[row, : lengths[row]] = log_probs[i]
        memories = [task.open({**(options or {}), "partials": False}) for _ in rows]
        events = task.step(memories, {task.output: padded}, lengths)
        for row, i in enumerate(rows):
            texts[i] = " ".join(e.text for e in [*events[row], *task.finish(memories[row])])
    return texts


def _distributions(
    raw: NDArray[Any], blank: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_] | None]:
    """Valid log-probabilities [N, T, V], the likeliest token of each row [N, T], and which rows [N, T] were invalid
    (``None``: no row was). A row is invalid if its maximum is NaN or infinite.

    An invalid row becomes a certain blank. Log-probabilities that rounding left slightly above 0 become 0.
    """
    logp = np.ascontiguousarray(raw, np.float32)
    best = logp.argmax(axis=2)  # in a row with NaN: the index of the NaN
    top = logp.reshape(-1).take(best.reshape(-1) + np.arange(best.size) * logp.shape[2]).reshape(best.shape)
    finite = np.isfinite(top)
    bad = None if finite.all() else ~finite
    if bad is not None or top.max(initial=0.0) > 0:
        logp = np.minimum(logp, np.float32(0))
        if bad is not None:
            logp[bad] = -np.inf
            logp[bad, blank] = 0
        best = logp.argmax(axis=2)
    return logp, best, bad


def _boundary(options: TranscribeOptions) -> int | None:
    """Index of the token between words: the named one, else a space or bar among characters."""
    if options.decoder.boundary is not None:
        return options.tokens.index(options.decoder.boundary)
    if options.units == "characters":
        return next((options.tokens.index(t) for t in (" ", "|") if t in options.tokens), None)
    return None
