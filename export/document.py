"""Makes a manifest from a checkpoint's facts. Only this module translates the terms of training to the daemon's."""

from __future__ import annotations

import datetime
import json
import math
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.contract.manifest import (
    Condition,
    Golden,
    Input,
    Manifest,
    Output,
    Packed,
    Provenance,
    State,
    StreamInput,
    Tensor,
)

__all__ = ["chunk_length", "flat_scores", "golden", "input_spec", "manifest", "options", "revision"]

#: Seconds of audio that flush the last result, if a checkpoint does not state it.
FLUSH_SECONDS = 0.4
CHUNK_MS = 300


def chunk_length(info: Mapping[str, Any], milliseconds: float | None = None) -> int:
    """The number of samples in a chunk of ``milliseconds``; ``None``: the whole number of steps nearest to
    ``CHUNK_MS``.

    Raises ``ValueError`` unless ``milliseconds`` is a whole number of steps; the message has the nearest valid length.
    """
    hop, rate = int(info["hop"]), int(info["sample_rate"])
    if milliseconds is None:
        return max(1, math.floor(CHUNK_MS * rate / 1000 / hop + 0.5)) * hop
    steps = milliseconds * rate / 1000 / hop
    if steps < 1 or not math.isclose(steps, round(steps), abs_tol=1e-6):
        step = 1000 * hop / rate
        raise ValueError(
            f"a chunk of {milliseconds:g} ms is {steps:g} steps of {step:g} ms: take {max(1, round(steps)) * step:g} ms"
        )
    return round(steps) * hop


def input_spec(info: Mapping[str, Any], milliseconds: float | None = None) -> Input:
    """The manifest's input: ``info["input"]`` if given, else PCM in chunks of :func:`chunk_length`. Raises
    ``ValueError`` for ``milliseconds`` with an input that is no PCM."""
    if "input" in info:
        if milliseconds is not None:
            raise ValueError(f"the chunks of {info['name']} have no length in milliseconds")
        return Input.model_validate_json(json.dumps(info["input"]))
    chunk = chunk_length(info, milliseconds)
    return Input(
        name="pcm",
        dtype="int16",
        chunk_shape=(chunk,),
        sample_rate=info["sample_rate"],
        lowest_rate=info.get("lowest_rate"),
    )


def options(info: Mapping[str, Any]) -> dict[str, Any]:
    """The task's options: those that follow from ``tokens`` and ``lexicon``, overridden by ``info["options"]``.

    ``lexicon``: word -> pronunciations (lists of tokens), or the lexicon as text.
    """
    found: dict[str, Any] = {}
    if info["task"] == "transcribe":
        found = {"tokens": list(info["tokens"]), "blank": 0, "units": info.get("units", "phones")}
        lexicon = info.get("lexicon")
        if lexicon:
            text = lexicon if isinstance(lexicon, str) else _lexicon(lexicon)
            found["lexicon"] = Packed.pack(text.encode()).model_dump()
            found["decoder"] = {"kind": "beam"}
    return found | dict(info.get("options", {}))


def _lexicon(words: Mapping[str, list[list[str]]]) -> str:
    return "".join(f"{word}\t{' '.join(tokens)}\n" for word in sorted(words) for tokens in words[word])


def flat_scores(scores: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Flatten ``{"dev": {"wer": 0.1}}`` to ``{"dev.wer": 0.1}``; values that are not finite numbers are left out."""
    found: dict[str, float] = {}
    for name, value in scores.items():
        if isinstance(value, Mapping):
            found |= flat_scores(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and math.isfinite(value):
            found[prefix + name] = round(float(value), 6)
    return found


def revision() -> str:
    """Git revision of this code; ``-dirty`` with uncommitted changes, ``unknown`` outside of a checkout."""
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


def golden(
    chunks: NDArray[Any],
    whole: Mapping[str, NDArray[Any]],
    *,
    more_inputs: Mapping[str, NDArray[Any]] = {},
    conditions: Mapping[str, NDArray[Any]] = {},
) -> Golden:
    """The golden example from ``chunks`` [n, 1, *chunk_shape] and ``whole``, the outputs [1, n * steps, ...] of one
    call with all chunks, which are split by chunk.

    ``more_inputs``: chunks [n, 1, ...] of each further input. ``conditions``: [1, *shape].
    """
    count = len(chunks)
    cut = {name: np.split(array, count, axis=1) for name, array in whole.items()}
    return Golden(
        chunks=tuple(Tensor.of(chunk) for chunk in chunks),
        outputs={name: tuple(Tensor.of(part) for part in parts) for name, parts in cut.items()},
        more_inputs={name: tuple(Tensor.of(chunk) for chunk in array) for name, array in more_inputs.items()},
        conditions={name: Tensor.of(array) for name, array in conditions.items()},
    )


def manifest(
    info: Mapping[str, Any],
    *,
    source: Input,
    more_inputs: Sequence[StreamInput] = (),
    conditions: Sequence[Condition] = (),
    states: Mapping[str, tuple[str, tuple[int, ...]]],
    outputs: Mapping[str, tuple[str, tuple[int, ...]]],
    example: Golden,
    tolerance: float,
    max_batch: int,
    notes: str = "",
    parameters: int | None = None,
    receptive_field: int | None = None,
) -> Manifest:
    """The manifest. ``info``: see :func:`models.load`. ``states`` and ``outputs``: dtype and shape without batch, by
    name."""
    flush = 0
    if source.sample_rate is not None:
        step_seconds = info["hop"] / source.sample_rate
        flush = math.ceil(info.get("flush_seconds", FLUSH_SECONDS) / step_seconds - 1e-9)
    return Manifest(
        name=info["name"],
        version=str(info.get("version", "1")),
        task=info["task"],
        licence=info["licence"],
        description=info.get("description", ""),
        input=source,
        more_inputs=tuple(more_inputs),
        conditions=tuple(conditions),
        states=tuple(
            State.model_validate({"in": name, "out": f"{name}.next", "dtype": dtype, "shape": shape})
            for name, (dtype, shape) in states.items()
        ),
        outputs=tuple(
            Output.model_validate({"name": name, "dtype": dtype, "shape": shape})
            for name, (dtype, shape) in outputs.items()
        ),
        latency=int(info.get("latency", 0)),
        flush=int(info.get("flush", flush)),
        max_batch=max_batch,
        options=options(info),
        provenance=Provenance(
            data=info["data"],
            revision=str(info.get("revision", revision())),
            created=datetime.datetime.now(datetime.UTC).date().isoformat(),
            tolerance=tolerance,
            scores=flat_scores(info.get("scores", {})),
            notes=notes or str(info.get("notes", "")),
            parameters=parameters,
            receptive_field=receptive_field,
        ),
        golden=example,
    )
