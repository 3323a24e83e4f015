"""Adopts a recogniser's folder as one file: analyse, assemble, record the golden example, judge, write."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx_ir.passes.common import ClearMetadataAndDocStringPass, NameFixPass

from export.adopt.around import Adopted
from export.adopt.batch import settle
from export.adopt.build import (
    GOLDEN,
    SIGNAL,
    BrokenLawsError,
    adopt,
    leak,
    model_name,
    prove,
    state_bound,
    today,
    together_only,
)
from export.adopt.plan import part_of
from export.adopt.recogniser.assemble import Recogniser, assemble
from export.adopt.recogniser.files import Files, find
from export.adopt.recogniser.host import drive
from export.adopt.recogniser.kinds import Kind, kind_of
from export.adopt.recogniser.tokens import Tokens, read_tokens
from export.adopt.recogniser.transducer import search_of
from export.adopt.report import AdoptionError, Report
from export.adopt.roles import assign
from export.adopt.settings import AdoptSettings
from export.file import draft_folder
from streamer.contract.judge import Verdict
from streamer.contract.manifest import Golden, Input, Manifest, Output, Provenance, Tensor
from streamer.contract.probe import probe
from streamer.engine.proof import judge_file

__all__ = ["adopt_folder"]


def adopt_folder(
    folder: Path,
    target: Path,
    settings: AdoptSettings | None = None,
    *,
    report: Report | None = None,
    max_batch: int = 64,
    seed: int = 0,
    long_chunks: int = 400,
) -> Verdict:
    """Write ``target``. Raises :class:`AdoptionError`, and then leaves an existing file unchanged.

    ``long_chunks``: length of the judge's endurance run.
    """
    settings, report = settings or AdoptSettings(), report or Report()
    name = model_name(target)
    files = find(folder, report, int8=settings.recogniser.int8)
    kind = kind_of(files.encoder, files.decoder is not None, settings, report)
    if kind.frontend is None:
        return _sound(files, kind, target, settings, report, max_batch, seed, long_chunks)
    target.parent.mkdir(parents=True, exist_ok=True)
    with draft_folder(target) as place:
        draft = Path(place) / target.name
        for fixed in (False, True):
            recogniser = _recogniser(files, kind, settings, report if not fixed else Report(), fixed or kind.single)
            report.step("comparing with the original")
            _write(draft, recogniser, files, settings, max_batch, seed, report if not fixed else Report(), name)
            report.step("judging it")
            verdict = judge_file(draft, seed=seed, long_chunks=long_chunks)
            if not recogniser.free or not together_only(verdict):
                break
            if state_bound(draft, verdict, report):
                verdict = judge_file(draft, seed=seed, long_chunks=long_chunks)
                break
            report.found(f"{leak(verdict)}: max_batch = 1")
        if not verdict.ok:
            raise BrokenLawsError(verdict)
        os.replace(draft, target)
    return Verdict(target, seed, verdict.findings)


def _sound(
    files: Files,
    kind: Kind,
    target: Path,
    settings: AdoptSettings,
    report: Report,
    max_batch: int,
    seed: int,
    long_chunks: int,
) -> Verdict:
    """Adopt a recogniser that takes sound: as any other graph, with its tokens as the task's options."""
    size = files.encoder.outputs[0].dims[-1]
    tokens = _tokens(files, kind, size if isinstance(size, int) else None)
    described = settings.model.model_dump(exclude_unset=True)
    model = {"name": model_name(target), "flush": 0, **described}
    whole = kind.settings.model_copy(
        update={
            "model": settings.model.model_copy(update=model),
            "task": {"name": "transcribe", **_options(tokens, settings, 0)},
        }
    )
    return adopt(
        files.encoder.path, target, whole, report=report, max_batch=max_batch, seed=seed, long_chunks=long_chunks
    )


def _tokens(files: Files, kind: Kind, size: int | None) -> Tokens:
    """The tokens. ``size``: their number; ``None``: it is in the metadata."""
    if size is None:
        text = files.encoder.metadata.get("vocab_size", "")
        if not text.isdecimal():
            raise AdoptionError(f"{files.encoder.path.name} does not say how many tokens it scores")
        size = int(text) + kind.last_is_blank
    return read_tokens(files.tokens, size, last=kind.last_is_blank)


def _recogniser(files: Files, kind: Kind, settings: AdoptSettings, report: Report, fixed: bool) -> Recogniser:
    """Analyse the graphs. ``fixed``: the batch stays 1."""
    roles = assign(kind.graph.inputs, kind.graph.outputs, kind.settings)
    part = part_of(kind.graph, roles, kind.settings, Report())
    assert part is not None  # open questions are raised
    search = None
    if files.decoder is not None and files.joiner is not None:
        search = search_of(files.decoder, files.joiner)
        fixed = fixed or not search.free
    settled = settle(part, report, fixed=fixed)
    assert kind.frontend is not None
    blank = Tokens((), 0, "", None)
    recogniser = Recogniser(kind, kind.frontend, blank, settled, search, settings.recogniser.early)
    tokens = read_tokens(files.tokens, recogniser.size, last=kind.last_is_blank)
    if search is not None:
        if tokens.blank != 0:
            raise AdoptionError(f"{files.tokens}: the blank is number {tokens.blank}, a transducer's blank is 0")
        silent = (0,) if tokens.unknown is None else (0, tokens.unknown)
        recogniser = replace(recogniser, search=replace(search, silent=silent))
    return replace(recogniser, tokens=tokens)


def _write(
    draft: Path,
    recogniser: Recogniser,
    files: Files,
    settings: AdoptSettings,
    max_batch: int,
    seed: int,
    report: Report,
    name: str,
) -> None:
    """Write the draft, with a golden example made by the original files and the host's code around them."""
    spec = Input(
        name="pcm", dtype="int16", chunk_shape=(recogniser.chunk,), sample_rate=recogniser.frontend.rate
    )  # fmt: skip
    chunks = probe(spec, SIGNAL, 1, np.random.default_rng(seed))
    want = drive(recogniser, files.encoder, chunks)
    adopted = assemble(recogniser, report)
    ClearMetadataAndDocStringPass()(adopted.model)
    NameFixPass()(adopted.model)

    def described(tolerance: float) -> Manifest:
        batch = max_batch if recogniser.free else 1
        return _manifest(recogniser, adopted, files, settings, spec, chunks, want, batch, tolerance, name)

    advice = "a defect of streamer adopt, please report it"
    prove(draft, adopted, described, chunks, {"log_probs": want}, advice)


def _manifest(
    recogniser: Recogniser,
    adopted: Adopted,
    files: Files,
    settings: AdoptSettings,
    spec: Input,
    chunks: NDArray[Any],
    want: NDArray[Any],
    max_batch: int,
    tolerance: float,
    name: str,
) -> Manifest:
    described, some = settings.model, min(GOLDEN, len(chunks))
    latency = recogniser.latency
    # further steps, until the last window has passed the end of the sound
    rest = -(-(recogniser.kind.window - recogniser.kind.shift) * recogniser.steps // recogniser.kind.shift)
    fields = {
        "schema": 1,
        "name": described.name or name,
        "version": described.version,
        "task": "transcribe",
        "licence": described.licence,
        "description": described.description or f"{recogniser.kind.name}, adopted",
        "input": spec,
        "states": adopted.states,
        "outputs": (Output(name="log_probs", dtype="float32", shape=want.shape[2:]),),
        "latency": latency if described.latency is None else described.latency,
        "flush": latency + rest if described.flush is None else described.flush,
        "max_batch": max_batch,
        "options": _options(recogniser.tokens, settings, latency),
        "provenance": Provenance(
            data=described.data,
            revision="adopted",
            created=today(),
            tolerance=tolerance,
            notes="adopted from " + ", ".join(f"{file.path.name} (sha256 {file.digest[:16]})" for file in files.all),
        ),
        "golden": Golden(
            chunks=tuple(Tensor.of(chunk) for chunk in chunks[:some]),
            outputs={"log_probs": tuple(Tensor.of(row) for row in want[:some])},
        ),
    }
    return Manifest.model_validate(fields)


def _options(tokens: Tokens, settings: AdoptSettings, delay: int) -> dict[str, Any]:
    """The task's options, overridden by the user's settings. ``delay``: in steps."""
    given = json.loads(json.dumps({key: value for key, value in settings.task.items() if key != "name"}))
    found = {"tokens": list(tokens.texts), "blank": tokens.blank, "units": tokens.units, "delay_steps": delay}
    return {**found, **given}
