"""Adopts a foreign file: analyse, assemble, record the golden example, judge, write."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx_ir.passes.common import ClearMetadataAndDocStringPass, NameFixPass
from pydantic import ValidationError

from export.adopt.around import Adopted, around
from export.adopt.batch import first_call, settle
from export.adopt.chain import GraphChain, chain_of
from export.adopt.compare import compare_with
from export.adopt.flow import GraphFlow
from export.adopt.host import drive
from export.adopt.plan import GraphPart, part_of
from export.adopt.questions import Questions
from export.adopt.read import read
from export.adopt.report import AdoptionError, Report, listed
from export.adopt.roles import assign
from export.adopt.settings import AdoptSettings
from export.adopt.steps import ask_unless_steps_add_up
from export.adopt.watch import refuse_forgetful
from export.file import draft_of, write
from streamer import tasks
from streamer.contract.judge import CHUNK_TOLERANCE, Verdict
from streamer.contract.manifest import KEY, Golden, Manifest, Provenance, Tensor
from streamer.contract.probe import Signal, probe, run, worst
from streamer.engine.model import Model, ModelError
from streamer.engine.proof import judge_file

__all__ = [
    "GOLDEN",
    "SIGNAL",
    "BrokenLawsError",
    "adopt",
    "leak",
    "model_name",
    "prove",
    "state_bound",
    "today",
    "together_only",
]

Arrays = dict[str, NDArray[Any]]

#: Calls of the golden example, and of the longer signal on which the file is compared with the original.
GOLDEN, SIGNAL = 4, 24
#: Larger differences between rows in a batch and rows alone are not rounding; the manifest allows no larger bound.
COMPANY_LIMIT = 1e-3
#: Tolerance of float16, where a sum in another order is another number.
HALF_TOLERANCE = 1e-2


class BrokenLawsError(AdoptionError):
    """The adopted file breaks a law and was not written; ``verdict`` has the findings."""

    def __init__(self, verdict: Verdict) -> None:
        broken = "; ".join(f"{f.law}: {f.check}{f' ({f.detail})' if f.detail else ''}" for f in verdict.refusals)
        super().__init__(f"the adopted file breaks its laws, nothing was written: {broken}")
        self.verdict = verdict


def adopt(
    source: Path,
    target: Path,
    settings: AdoptSettings | None = None,
    *,
    beside: Path = Path(),
    report: Report | None = None,
    max_batch: int = 64,
    seed: int = 0,
    long_chunks: int = 400,
    compare: tuple[Path, Path] | None = None,
) -> Verdict:
    """Write ``target``. Raises :class:`AdoptionError`, and then leaves an existing file unchanged.

    ``beside``: the folder of files named in the settings. ``long_chunks``: length of the judge's endurance run.
    ``compare``: inputs and outputs recorded by the user's own host (:mod:`export.adopt.compare`).
    """
    name = model_name(target)
    settings, report = settings or AdoptSettings(), report or Report()
    parts = _parts(source, settings, beside, report)
    settled = [settle(part, report) for part in parts]
    if len({one.free for one in settled}) > 1:
        report.found("the batch of one of the two graphs stays 1, so it stays 1 in both")
        settled = [settle(part, Report(), fixed=True) for part in parts]
    with draft_of(target) as draft:
        chain = chain_of(settled, settings, report)
        report.step("comparing with the original")
        _write(draft, chain, around(chain, report), settings, beside, max_batch, seed, name)
        report.step("judging it")
        verdict = judge_file(draft, seed=seed, long_chunks=long_chunks)
        if chain.free and together_only(verdict):
            if state_bound(draft, verdict, report):
                verdict = judge_file(draft, seed=seed, long_chunks=long_chunks)
            else:
                report.found(f"{leak(verdict)}: max_batch = 1")
                chain = chain_of([settle(part, Report(), fixed=True) for part in parts], settings, Report())
                _write(draft, chain, around(chain, Report()), settings, beside, max_batch, seed, name)
                verdict = judge_file(draft, seed=seed, long_chunks=long_chunks)
        if not verdict.ok:
            raise BrokenLawsError(verdict)
        if compare is not None:
            report.found(compare_with(Model.load(draft), chain, compare))
    return Verdict(target, seed, verdict.findings)


# -- rows in a batch ---------------------------------------------------------------------------------------------------


def together_only(verdict: Verdict) -> bool:
    """Whether the company law is the only broken one."""
    return {finding.law for finding in verdict.refusals} == {"company"}


def state_bound(draft: Path, verdict: Verdict, report: Report) -> bool:
    """If rows in a batch differ from rows alone only by rounding, write that as the bound of the draft and return
    ``True``: the draft has to be judged again. Returns ``False`` if the difference is larger."""
    by = max(float("inf") if f.measured is None else f.measured for f in verdict.refusals)
    if not 2 * by <= COMPANY_LIMIT:
        return False
    proto = onnx.load(draft)
    entry = next(entry for entry in proto.metadata_props if entry.key == KEY)
    manifest = Manifest.from_json(entry.value)
    bound = float(f"{2 * by:.1g}")
    provenance = manifest.provenance.model_copy(update={"company": bound})
    entry.value = manifest.model_copy(update={"provenance": provenance}).to_json()
    draft.write_bytes(proto.SerializeToString(deterministic=True))
    report.found(
        f"rows in a batch are {by:.1e} from rows alone: this graph's kernels round differently with the size of the "
        f"batch. The file states {bound:.0e} as its bound; batches up to {manifest.max_batch}"
    )
    return True


def leak(verdict: Verdict) -> str:
    """A text: how much rows of a batch influence each other."""
    worst = max(verdict.refusals, key=lambda f: float("inf") if f.measured is None else f.measured)
    by = "not finite" if worst.measured is None or not np.isfinite(worst.measured) else f"{worst.measured:.2g} off"
    return f"rows influence each other, {by} {worst.check} ({worst.detail.split(';')[-1].strip()})"


# -- analysis ---------------------------------------------------------------------------------------------------------


def _parts(source: Path, settings: AdoptSettings, beside: Path, report: Report) -> list[GraphPart]:
    """The one or two graphs, each with its plan."""
    files = [read(source)]
    if settings.host is not None and settings.host.chain is not None:
        files.append(read(beside / settings.host.chain))
        newest = max(file.opset for file in files)  # one graph has one opset
        files = [file if file.opset == newest else read(file.path, newest) for file in files]
    names = {port.name for file in files for port in (*file.inputs, *file.outputs)}
    if strange := sorted(settings.named() - names):
        raise AdoptionError(f"the settings name {listed(strange)}: the tensors are {listed(sorted(names), 20)}")
    parts, asked = [], Questions()
    for number, file in enumerate(files):
        report.found(f"{file.path.name}: opset {file.opset}, {len(file.inputs)} inputs, {len(file.outputs)} outputs")
        ours = (
            settings
            if number == 0
            else settings.model_copy(update={"input": settings.input.model_copy(update={"name": None})})
        )
        flow = GraphFlow(file.model())
        roles = assign(file.inputs, file.outputs, ours, flow, asked)
        part = part_of(file, roles, ours, report, frames=number > 0, flow=flow, asked=asked)
        if part is not None:
            parts.append(part)
    asked.settle()
    for part in parts:
        _report_part(part, report)
        refuse_forgetful(part, settings, first_call(part), report)
        ask_unless_steps_add_up(part)
    if not any(part.states for part in parts) and not parts[0].stream.overlap:
        raise AdoptionError(
            f"no state pair found in {source}: no output comes back as an input. If a state has another name after "
            'the call, say [state] x = "y"; if the host keeps a state, say [input] overlap = n, or [host]'
        )
    return parts


def _report_part(part: GraphPart, report: Report) -> None:
    for name, value in part.roles.constants.items():
        report.did(f"made {name} the constant {value}")
    for name in part.roles.lengths:
        report.did(f"made {name} the constant {part.stream.layout.shape[0]}, the length of every call")
    if part.roles.dropped:
        report.did(f"dropped the output {listed(part.roles.dropped)}")


# -- the file ---------------------------------------------------------------------------------------------------------


def _write(
    draft: Path,
    chain: GraphChain,
    adopted: Adopted,
    settings: AdoptSettings,
    beside: Path,
    max_batch: int,
    seed: int,
    name: str,
) -> None:
    """Write the draft, with a golden example made by the original files and the host's code around them."""
    ClearMetadataAndDocStringPass()(adopted.model)
    NameFixPass()(adopted.model)
    rng = np.random.default_rng(seed)
    signal = Signal(
        {one.name: probe(one, SIGNAL, 1, rng) for one in (chain.input, *chain.more)},
        {one.name: rng.uniform(0.2, 1.5, (1, *one.shape)).astype(one.dtype) for one in adopted.conditions},
    )
    want = drive(chain, signal)

    def described(tolerance: float) -> Manifest:
        most = max_batch if chain.free else 1
        return _manifest(chain, adopted, settings, beside, signal, want, most, tolerance, name)

    advice = "check [host] and [input] scale, or report a defect of streamer adopt"
    prove(draft, adopted, described, signal, want, advice)


def prove(
    draft: Path,
    adopted: Adopted,
    described: Callable[[float], Manifest],
    chunks: Signal | NDArray[Any],
    want: Mapping[str, NDArray[Any]],
    advice: str,
) -> None:
    """Write the draft, with its measured deviation from ``want``, the original's outputs for ``chunks``.

    ``described``: makes the manifest for a deviation. Raises :class:`AdoptionError` for an invalid description, and for
    too large a deviation; that message ends with ``advice``.
    """
    try:
        manifest = described(0.0)
        tasks.create(manifest)
    except (ValidationError, tasks.TaskError) as error:
        problems = "; ".join(e["msg"] for e in error.errors()) if isinstance(error, ValidationError) else str(error)
        raise AdoptionError(f"the settings describe an invalid model: {problems}") from error
    write(draft, adopted.model, manifest)
    try:
        got, _ = run(Model.load(draft), chunks)
    except ModelError as error:
        raise AdoptionError(f"the adopted graph does not load, which is a defect of streamer adopt: {error}") from error
    reached, _, name = worst(got, want)
    half = any(state.dtype == "float16" for state in adopted.states)
    limit = HALF_TOLERANCE if half else CHUNK_TOLERANCE
    if not reached <= limit:
        raise AdoptionError(
            f"{name} differs by {reached:.1e} from the original with its host's code around it, {limit:.0e} is "
            f"allowed: {advice}"
        )
    write(draft, adopted.model, described(float(f"{reached:.2g}")))


def _manifest(
    chain: GraphChain,
    adopted: Adopted,
    settings: AdoptSettings,
    beside: Path,
    signal: Signal,
    want: Arrays,
    max_batch: int,
    tolerance: float,
    name: str,
) -> Manifest:
    described = settings.model
    delay = 0 if chain.sound is None or chain.host is None else chain.host.fft - chain.host.hop
    some = min(GOLDEN, len(signal))
    files = [settled.part.foreign for settled in chain.parts]
    fields = {
        "schema": 1,
        "name": described.name or name,
        "version": described.version,
        "task": settings.task.get("name", "raw"),
        "licence": described.licence,
        "description": described.description,
        "input": chain.input,
        "more_inputs": chain.more,
        "conditions": adopted.conditions,
        "states": adopted.states,
        "outputs": tuple(chain.output(result) for result in chain.results),
        "latency": delay if described.latency is None else described.latency,
        "flush": delay if described.flush is None else described.flush,
        "max_batch": max_batch,
        "options": _options(settings, beside),
        "provenance": Provenance(
            data=described.data,
            revision="adopted",
            created=today(),
            tolerance=tolerance,
            notes="adopted from " + " and ".join(f"{file.path.name} (sha256 {file.digest[:16]})" for file in files),
        ),
        "golden": Golden(
            chunks=tuple(Tensor.of(chunk) for chunk in signal.inputs[chain.input.name][:some]),
            more_inputs={
                one.name: tuple(Tensor.of(chunk) for chunk in signal.inputs[one.name][:some]) for one in chain.more
            },
            conditions={name: Tensor.of(array) for name, array in signal.conditions.items()},
            outputs={name: tuple(Tensor.of(row) for row in rows[:some]) for name, rows in want.items()},
        ),
    }
    return Manifest.model_validate(fields)


def _options(settings: AdoptSettings, beside: Path) -> dict[str, Any]:
    """The table [task] without its name. ``tokens`` may be a file: one token a line, perhaps followed by its number."""
    options: dict[str, Any] = json.loads(json.dumps({k: v for k, v in settings.task.items() if k != "name"}))
    if isinstance(tokens := options.get("tokens"), str):
        path = beside / tokens
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise AdoptionError(f"[task] tokens: can't read {path}: {error}") from error
        options["tokens"] = [re.sub(r"\s\d+$", "", line) for line in lines if line]
    return options


def model_name(target: Path) -> str:
    """The model's name, from its file name."""
    stem = target.name.removesuffix(".onnx").removesuffix(".streamer")
    return (re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._") or "adopted")[:64]


def today() -> str:
    """Today's date in UTC, as in ISO 8601."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()
