"""The judge: tests a model file against its contract and laws 1 to 3, on this machine, from the file alone.

Chunk law: the golden example inside the file was recorded by PyTorch from the whole sequence in one call; here it is
run chunk by chunk. Company law: streams run alone, then in a batch with others, and their rows are compared. Sleep law:
states are serialised and restored into a freshly loaded file. ``export/verify.py`` adds the comparison with PyTorch and
runs this before a file is written; ``streamer check`` runs it on any machine. ``docs/laws.md`` has the reasons.

Inputs are made from a fixed seed that the findings name. Deviations are relative: a step's largest difference over the
step's largest reference value; the worst step counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from streamer.contract.manifest import Manifest, Tensor
from streamer.contract.probe import (
    Array,
    Arrays,
    Runnable,
    Signal,
    beside,
    deviation,
    flat,
    poisons,
    probe,
    random_signal,
    rows,
    run,
)
from streamer.contract.probe import worst as compare_all

__all__ = ["CHUNK_TOLERANCE", "COMPANY_TOLERANCE", "Decoding", "Finding", "Verdict", "deviation", "judge", "probe"]

#: Chunk law, float32.
CHUNK_TOLERANCE = 1e-4
#: Company law, which allows only the rounding of float32 kernels that depends on the batch size. An adopted file may
#: state a larger bound of its own, up to 1e-3.
COMPANY_TOLERANCE = 1e-5
#: A quantised file states its deviation from PyTorch; above this it counts as a different model.
QUANTISED_LIMIT = 0.15
#: Number of chunks in which a state that was set to float32's counting limit must return from it.
RETURN_CHUNKS = 32
#: Float32's counting limit (x + 1 == x above it): a state that reaches it is broken.
FLOAT_LIMIT = float(2**24)


@dataclass(frozen=True)
class Finding:
    """One check. ``measured`` and ``tolerance`` are relative deviations unless ``detail`` says otherwise."""

    law: str
    check: str
    ok: bool
    measured: float | None = None
    tolerance: float | None = None
    detail: str = ""


@dataclass(frozen=True)
class Verdict:
    path: Path
    seed: int
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return all(finding.ok for finding in self.findings)

    @property
    def refusals(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if not finding.ok)

    def to_dict(self) -> dict[str, Any]:
        findings = [asdict(finding) for finding in self.findings]
        return {"file": str(self.path), "ok": self.ok, "seed": self.seed, "findings": findings}


class Decoding(Protocol):
    """The part of :class:`streamer.tasks.Task` that the judge tests."""

    def open(self, options: Mapping[str, Any]) -> Any: ...

    def step(self, memories: Sequence[Any], outputs: Arrays, steps: Sequence[int]) -> Any: ...

    def save(self, memory: Any) -> bytes: ...

    def load(self, data: bytes) -> Any: ...


def judge(
    path: str | Path,
    load: Callable[[Path], Runnable],
    task_of: Callable[[Manifest], Decoding],
    *,
    seed: int = 0,
    long_chunks: int = 400,
) -> Verdict:
    """All checks on one file; a bad file gives failed checks, no exception. ``load`` raises ``ValueError`` or
    ``OSError`` for a bad file. ``long_chunks``: length of the endurance run."""
    path = Path(path)
    try:
        model = load(path)
    except (ValueError, OSError) as error:
        return Verdict(path, seed, (Finding("contract", "file and manifest agree", False, detail=str(error)),))
    findings = [Finding("contract", "file and manifest agree", True, detail=f"{model.manifest.name}")]
    plans: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("contract", lambda: _contract(model, task_of)),
        ("chunk", lambda: _golden(model)),
        ("company", lambda: _company(model, np.random.default_rng(seed))),
        ("sleep", lambda: _sleep(model, load, np.random.default_rng(seed + 1))),
        ("endurance", lambda: _endurance(model, np.random.default_rng(seed + 2), long_chunks)),
    )
    for law, plan in plans:
        try:
            findings.extend(plan())
        except Exception as error:  # a foreign graph can fail in any way: that is a finding
            findings.append(Finding(law, "runs", False, detail=_line(error)))
    return Verdict(path, seed, tuple(findings))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


# -- the contract -----------------------------------------------------------------------------------------------------


def _contract(model: Runnable, task_of: Callable[[Manifest], Decoding]) -> Iterator[Finding]:
    manifest = model.manifest
    rng = np.random.default_rng(0)
    sizes = sorted({1, min(2, manifest.max_batch), manifest.max_batch})
    shapes = ""
    declared = {o.name: o.shape for o in manifest.outputs} | {s.in_: s.shape for s in manifest.states}
    for size in sizes:
        outputs, state = run(model, random_signal(manifest, 1, size, rng))
        for name, array in (*((o.name, outputs[o.name][0]) for o in manifest.outputs), *state.items()):
            if array.shape != (size, *declared[name]):
                shapes = f"{name} is {array.shape} at batch {size}, the manifest says {(size, *declared[name])}"
    yield Finding("contract", "batch axis is free", not shapes, detail=shapes or f"batches of {sizes}")

    wrong = []
    for change in (-1, 1):
        length = manifest.chunk + change
        inputs = {i.name: np.zeros((1, length, *i.chunk_shape[1:]), i.dtype) for i in manifest.inputs}
        try:
            model.run({**inputs, **random_signal(manifest, 1, 1, rng).conditions, **model.zero_state(1)})
            wrong.append(length)
        except Exception:  # any error of the engine passes the check: only an answer fails it
            continue
    yield Finding("contract", "wrong chunk length is an error", not wrong, detail=f"accepted {wrong}" if wrong else "")

    try:
        task = task_of(manifest)
        memory = task.open({})
        first = {name: tensors[0].array() for name, tensors in manifest.golden.outputs.items()}
        task.step([memory], first, [manifest.steps])
        saved = task.save(memory)
        same = task.save(task.load(saved)) == saved
        detail = manifest.task if same else "the task's memory is not what it was after save and load"
        yield Finding("contract", "task options", same, detail=detail)
    except (ValueError, LookupError, TypeError) as error:
        yield Finding("contract", "task options", False, detail=_line(error))


# -- law 1 ------------------------------------------------------------------------------------------------------------


def _golden(model: Runnable) -> Iterator[Finding]:
    manifest = model.manifest
    golden, reached = manifest.golden, manifest.provenance.tolerance

    def recorded(tensors: Sequence[Tensor]) -> Any:
        return np.stack([tensor.array() for tensor in tensors])

    chunks = {manifest.input.name: golden.chunks, **golden.more_inputs}
    signal = Signal(
        {name: recorded(tensors) for name, tensors in chunks.items()},
        {name: tensor.array() for name, tensor in golden.conditions.items()},
    )
    want = {name: recorded(tensors) for name, tensors in golden.outputs.items()}
    got, _ = run(model, signal)
    worst, _, name = compare_all(got, want)
    # float32 files reach far below the law's tolerance; quantised ones say how far they landed, kernels may double it
    tolerance = max(CHUNK_TOLERANCE, 2 * reached)
    detail = f"{len(signal)} chunks against what was recorded at export, worst in {name}"
    if reached > CHUNK_TOLERANCE:
        detail += f"; quantised: {reached:.1%} from float32 at export"
    yield Finding(
        "chunk", "golden example", worst <= tolerance and reached <= QUANTISED_LIMIT, worst, tolerance, detail
    )
    silent = [key for key, array in want.items() if array.size < 2 or np.ptp(array.astype(np.float64)) == 0]
    proves = len(signal) >= 2 and not silent
    why = "" if proves else f"one chunk only, or constant outputs {silent}: it proves nothing"
    yield Finding("chunk", "golden example proves memory", proves, detail=why or f"{len(signal)} chunks")


# -- law 2 ------------------------------------------------------------------------------------------------------------


def _company(model: Runnable, rng: np.random.Generator) -> Iterator[Finding]:
    """Streams of different ages run alone, then together and next to poisoned rows; their rows must not change."""
    limit, tolerance = model.manifest.max_batch, model.manifest.provenance.company or COMPANY_TOLERANCE
    streams, length = min(8, limit), 3
    signal = random_signal(model.manifest, length + 3, streams, rng)
    apart, aged, alone = [], [], []
    for i in range(streams):
        age, own = i % 4, signal.rows([i])
        state = run(model, own.part(slice(age)))[1] if age else model.zero_state(1)
        now = own.part(slice(age, age + length))
        outputs, after = run(model, now, state)
        apart.append(now)
        aged.append(state)
        alone.append(flat(outputs, after))
    together = beside(apart)
    states = {name: np.concatenate([state[name] for state in aged]) for name in aged[0]}

    def compare(check: str, batch: Signal, state: Arrays, where: Mapping[int, int], said: str) -> Finding:
        outputs, after = run(model, batch, state)
        worst, equal, at = 0.0, True, ""
        for row, stream in where.items():
            got = flat(rows(outputs, [row], axis=1), rows(after, [row]))
            one, same, name = compare_all(got, alone[stream])
            equal &= same
            if one > worst:
                worst, at = one, f", worst in {name} at row {row} of {batch.batch}"
        detail = f"{said}; {'bit for bit' if equal else 'rounding only' if worst <= tolerance else 'differs'}{at}"
        return Finding("company", check, worst <= tolerance, worst, tolerance, detail)

    if limit == 1:
        yield Finding("company", "alone", True, detail="max_batch is 1: never in company")
        return
    for size in sorted({2, 3, 5, 8, limit} - set(range(limit + 1, 9))):
        order = np.arange(size) % streams
        where = dict(enumerate(order.tolist()))
        yield compare(
            f"batch of {size}", together.rows(order), rows(states, order), where, "every row, streams of different ages"
        )
    for name, neighbour, neighbour_state in poisons(model, signal.rows([0]).part(slice(length)), rng):
        size = min(limit, 8)
        worst: Finding | None = None
        for keep in (0, size // 2, size - 1):
            batch = beside([apart[-1] if row == keep else neighbour for row in range(size)])
            state = {key: np.concatenate([array] * size) for key, array in neighbour_state.items()}
            for key in state:
                state[key][keep] = states[key][-1]
            found = compare(
                f"beside {name}", batch, state, {keep: streams - 1}, f"rows 0, {size // 2}, {size - 1} of {size}"
            )
            if worst is None or not found.ok or (worst.ok and (found.measured or 0) > (worst.measured or 0)):
                worst = found
        if worst is not None:
            yield worst
    # a reused slot: its state rows are zeroed in place, as the engine does, and a new stream starts there
    pair = range(min(2, streams))
    used = run(model, together.rows(pair), rows(states, pair))[1]
    for array in used.values():
        array[0] = 0
    fresh = beside([signal.rows([0]).part(slice(length)), *apart[1 : len(pair)]])
    yield compare("slot just left", fresh, used, {0: 0}, "state zeroed in place, neighbour goes on")


# -- law 3 ------------------------------------------------------------------------------------------------------------


def _sleep(model: Runnable, load: Callable[[Path], Runnable], rng: np.random.Generator) -> Iterator[Finding]:
    length, batch = 6, min(2, model.manifest.max_batch)
    chunks = random_signal(model.manifest, length, batch, rng)
    whole = flat(*run(model, chunks))
    again = flat(*run(model, chunks))
    _, equal, name = compare_all(again, whole)
    yield Finding("sleep", "same input, same bits", equal, detail="" if equal else f"{name} differs from run to run")
    reloaded = load(model.path)
    broken = []
    for point in (1, 3, length - 1):
        before, state = run(model, chunks.part(slice(point)))
        saved = {key: (array.tobytes(), array.dtype, array.shape) for key, array in state.items()}
        restored = {
            key: np.frombuffer(data, dtype).reshape(shape).copy() for key, (data, dtype, shape) in saved.items()
        }
        after, end = run(reloaded, chunks.part(slice(point, None)), restored)
        joined = flat({key: np.concatenate([before[key], after[key]]) for key in before}, end)
        _, equal, name = compare_all(joined, whole)
        if not equal:
            broken.append(f"{name} after a snapshot at chunk {point}")
    detail = "; ".join(broken) or "states through bytes into a newly loaded file, at chunks 1, 3 and 5: bit for bit"
    yield Finding("sleep", "snapshot, load, go on", not broken, detail=detail)


# -- endurance --------------------------------------------------------------------------------------------------------


def _endurance(model: Runnable, rng: np.random.Generator, length: int) -> Iterator[Finding]:
    """Silence, full scale and noise in turn: outputs stay finite, states stay below float32's counting limit."""
    sound = random_signal(model.manifest, 1, 1, rng)
    extreme = next(found for name, found, _ in poisons(model, sound, rng) if name == "extreme values")
    kinds = (
        sound.inputs,
        {name: np.zeros_like(array) for name, array in sound.inputs.items()},
        {name: _loud(array) for name, array in extreme.inputs.items()},
    )
    state, fault = model.zero_state(1), ""
    sizes: list[dict[str, float]] = []
    for number in range(length):
        kind = (number * 5) // length % 3
        outputs, state = run(model, Signal(kinds[kind], sound.conditions), state)
        tensors = flat(outputs, state)
        sizes.append({key: float(np.max(np.abs(array.astype(np.float64)))) for key, array in state.items()})
        bad = [key for key, array in tensors.items() if not np.all(np.isfinite(array))]
        if bad:
            fault = f"{', '.join(bad)} not finite after {number + 1} chunks"
            break
    yield Finding("endurance", "finite on sound, silence, full scale", not fault, detail=fault or f"{length} chunks")
    floats = [key for key in state if state[key].dtype.kind == "f"]  # a count in int64 lasts longer than any machine
    growing = [key for key in floats if sizes[-1][key] >= FLOAT_LIMIT] or _counters(
        model, state, sizes, Signal(random_signal(model.manifest, RETURN_CHUNKS, 1, rng).inputs, sound.conditions)
    )
    detail = f"{', '.join(growing)} grows without end" if growing else "states saturate"
    yield Finding("endurance", "states do not grow", not growing and not fault, detail=detail)


def _loud(extreme: Array) -> Array:
    """A full-scale signal; for floats far beyond any sensor, but low enough for finite products."""
    if extreme.dtype.kind != "f":
        return extreme
    loud = min(1e6, float(np.sqrt(np.finfo(extreme.dtype).max)))
    return np.where(extreme > 0, loud, -loud).astype(extreme.dtype)


def _counters(model: Runnable, state: Arrays, sizes: list[dict[str, float]], sound: Signal) -> list[str]:
    """Finds float states that are unbounded counters: candidates grew as much in the second half as in the first. Set
    to 2^24, where float32 stops counting, a state that saturates or averages comes back down; a counter does not.
    ``sound`` has several chunks, since one may be a missing reading, with which a sensor's state does not change."""
    half, end = sizes[len(sizes) // 2], sizes[-1]
    suspects = [key for key in state if state[key].dtype.kind == "f" and end[key] > 1.5 * half[key] > 0]
    stuck = []
    for key in suspects:
        aged = {**state, key: np.full_like(state[key], FLOAT_LIMIT)}
        _, after = run(model, sound, aged)
        if not np.max(np.abs(after[key])) < FLOAT_LIMIT:  # an average may return slowly, but it does
            stuck.append(key)
    return stuck
