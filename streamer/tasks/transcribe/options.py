"""Options of the task ``transcribe``: those of a manifest, and those of a client for its stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from streamer.contract.manifest import Packed
from streamer.faults import faults
from streamer.tasks.strict import STRICT
from streamer.tasks.transcribe.confidence import FEATURES

__all__ = ["Decoder", "Endpoint", "TranscribeOptions", "TranscribeStreamOptions", "parse_stream_options"]

Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Bonus = Annotated[float, Field(ge=0, le=50, allow_inf_nan=False)]
#: These bounds are far above the daemon's settings for a stream.
Phrases = Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=2000)]


class Decoder(BaseModel):
    """Settings of the search. A hypothesis scores
    ``acoustic_scale * log p(ctc) + lm_weight * log p(lm) + word_score * words``."""

    model_config = STRICT

    kind: Literal["greedy", "beam"] = "greedy"
    #: Hypotheses kept per stream.
    beam: Annotated[int, Field(ge=1, le=1024)] = 16
    #: Hypotheses that score this many nats below the best one are dropped.
    beam_threshold: Annotated[float, Field(gt=0, le=1e6)] = 8.0
    #: Tokens below this posterior are not tried as extensions.
    token_threshold: Probability = 0.01
    #: At most this many tokens are tried per step.
    max_tokens: Annotated[int, Field(ge=1, le=65536)] = 8
    #: Steps whose blank posterior is above this extend no hypothesis; 1 tries every step.
    blank_skip: Probability = 0.95
    lm_weight: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 1.0
    word_score: Weight = 0.0
    acoustic_scale: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] = 1.0
    #: Subtracted from the blank's log-probability.
    blank_penalty: Weight = 0.0
    #: Whether the language model scores the sentence end at the end of an utterance.
    sentence_end: bool = True
    #: Hypotheses are merged when they have the same words (``history``) or the same language-model state (``state``).
    merge: Literal["history", "state"] = "history"
    #: Token between words, if the model has one: optional between two words, never part of one.
    boundary: str | None = None


class Endpoint(BaseModel):
    """The three silence rules that end an utterance, in seconds; ``None`` switches a rule off.

    ``silence``: this much silence with nothing decoded. ``trailing``: this much silence after something was decoded.
    ``length``: an utterance this long is cut after its last whole word; never off, since it bounds a stream's memory.
    """

    model_config = STRICT

    silence: Seconds | None = 2.4
    trailing: Seconds | None = 1.2
    length: Annotated[float, Field(gt=0, le=300, allow_inf_nan=False)] = 20.0


class Confidence(BaseModel):
    """Logistic regression of the probability that a word is right, on the features of
    :mod:`streamer.tasks.transcribe.confidence`: ``bias`` and a weight for each feature."""

    model_config = STRICT

    bias: Finite
    weights: Annotated[list[Finite], Field(min_length=len(FEATURES), max_length=len(FEATURES))]


class Times(BaseModel):
    """Measured corrections of word times, in seconds. ``start``: from the start of the first token's step to the word's
    start. ``end``: from the end of the last token's step to the word's end."""

    model_config = STRICT

    start: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] = 0.0
    end: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] = 0.0


class TranscribeOptions(BaseModel):
    """``options`` of a manifest whose task is ``transcribe``.

    ``units``: ``pieces`` are parts of words, as in SentencePiece: the first piece of a word begins with ``▁``, and
    ``<0xNN>`` is a byte of UTF-8.
    ``lexicon``: lines ``WORD<tab>TOKEN TOKEN ...`` in UTF-8, several pronunciations allowed.
    ``lm``: an n-gram model in the format of :mod:`streamer.tasks.transcribe.ngram`,
    over the lexicon's words, or over the tokens where there is no lexicon.
    ``letters``: pronunciation model for words that the lexicon lacks (:mod:`streamer.tasks.transcribe.letters`).
    ``hotword_bonus``: default bonus in nats for each word of a hotword phrase.
    ``confidence``: turns confidences into probabilities; ``times``: corrects the times of words.
    ``delay_steps``: tokens are emitted this many steps after their sound (word times are corrected by it).
    """

    model_config = STRICT

    tokens: Annotated[list[str], Field(min_length=2, max_length=65536)]
    blank: Annotated[int, Field(ge=0)] = 0
    units: Literal["phones", "characters", "words", "pieces"]
    lexicon: Packed | None = None
    lm: Packed | None = None
    letters: Packed | None = None
    hotword_bonus: Bonus = 5.0
    decoder: Decoder = Decoder()
    endpoint: Endpoint = Endpoint()
    confidence: Confidence | None = None
    times: Times = Times()
    delay_steps: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _consistent(self) -> TranscribeOptions:
        twice = (
            sorted({t for t in self.tokens if self.tokens.count(t) > 1})
            if len(set(self.tokens)) < len(self.tokens)
            else []
        )
        if twice:
            raise ValueError(f"tokens named twice: {', '.join(twice)}")
        if self.blank >= len(self.tokens):
            raise ValueError(f"blank is {self.blank}, there are {len(self.tokens)} tokens")
        if self.decoder.boundary is not None and self.decoder.boundary not in self.tokens:
            raise ValueError(f"the boundary token {self.decoder.boundary!r} is not among the tokens")
        return self


class TranscribeStreamOptions(BaseModel):
    """A client's options for its stream; omitted fields keep the model's defaults."""

    model_config = STRICT

    decoder: Decoder
    endpoint: Endpoint
    partials: bool = True
    words: bool = True
    #: Names and terms to expect, one to eight words each, and the bonus of each of their words in nats.
    hotwords: Phrases = []
    hotword_bonus: Bonus = 5.0
    #: Numbers in finals: as spoken, or in digits. Another model writes them, after this task.
    numbers: Literal["spoken", "written"] = "spoken"
    #: Finals as plain words, or with punctuation and capitals. Another model adds them, after this task.
    text: Literal["spoken", "written"] = "spoken"
    #: Whether a second recogniser, where there is one, decodes finals again.
    revise: bool = True


def parse_stream_options(given: Mapping[str, Any], model: TranscribeOptions) -> TranscribeStreamOptions:
    """Merge a client's options into the model's defaults. Raises a ``ValueError`` that names every invalid key.

    ``decoder`` is the name of a kind or a table of settings, ``endpoint`` a table of seconds.
    """
    merged: dict[str, Any] = dict(given)
    if isinstance(merged.get("decoder"), str):
        merged["decoder"] = {"kind": merged["decoder"]}
    for name, default in (("decoder", model.decoder), ("endpoint", model.endpoint)):
        value = merged.get(name, {})
        merged[name] = {**default.model_dump(), **value} if isinstance(value, Mapping) else value
    merged = {"hotword_bonus": model.hotword_bonus, **merged}
    try:
        options = TranscribeStreamOptions.model_validate(merged)
    except ValidationError as error:
        problems = faults(error, TranscribeStreamOptions, "options")
        raise ValueError(f"stream options of the task transcribe do not fit: {problems}") from error
    if options.decoder.boundary != model.decoder.boundary:
        raise ValueError("stream options of the task transcribe do not fit: decoder.boundary belongs to the model")
    return options
