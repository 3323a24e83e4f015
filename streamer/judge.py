"""The judge: holds a model file to its contract and to laws 1 to 3, on this machine, with nothing but the file.

It treats the file as a stranger. Chunk law: the golden example inside the file was recorded by PyTorch from the whole sequence
in one call; here it is run chunk by chunk. Company law: streams run alone, then beside others, and their rows are compared.
Sleep law: states go through bytes into a freshly loaded file. ``export/verify.py`` adds PyTorch beside it, and runs this
before a file may exist; ``streamer check`` runs the same on any machine. The plan for each law is in ``docs/laws.md``.

Inputs are made from a fixed seed that the verdict names. Deviations are relative: a step's largest difference over the
step's largest reference value, the worst step counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer import tasks
from streamer.engine.model import Model, ModelError
from streamer.manifest import Input, Manifest, ManifestError

__all__ = ["CHUNK_TOLERANCE", "COMPANY_TOLERANCE", "Finding", "Verdict", "deviation", "judge", "probe"]

#: Chunk law, float32.
CHUNK_TOLERANCE = 1e-4
#: Company law. The law says "does not depend"; only the rounding of float32 kernels that differ with the batch is excused.
COMPANY_TOLERANCE = 1e-5
#: A quantised file says how far from PyTorch it landed; farther than this it is another model, not a smaller one.
QUANTISED_LIMIT = 0.15
#: Above this a float32 stops counting, so a state that gets there is broken.
FLOAT_LIMIT = float(2**24)

Array = NDArray[Any]
Arrays = dict[str, Array]


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


def judge(path: str | Path, *, seed: int = 0, long_chunks: int = 400) -> Verdict:
    """Every check on one file; never raises for a bad file, it says so. ``long_chunks``: length of the endurance run."""
    path = Path(path)
    try:
        model = Model.load(path)
    except (ModelError, ManifestError, OSError) as error:
        return Verdict(path, seed, (Finding("contract", "file and manifest agree", False, detail=str(error)),))
    findings = [Finding("contract", "file and manifest agree", True, detail=f"{model.manifest.name}")]
    plans: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("contract", lambda: _contract(model)),
        ("chunk", lambda: _golden(model)),
        ("company", lambda: _company(model, np.random.default_rng(seed))),
        ("sleep", lambda: _sleep(model, np.random.default_rng(seed + 1))),
        ("endurance", lambda: _endurance(model, np.random.default_rng(seed + 2), long_chunks)),
    )
    for law, plan in plans:
        try:
            findings.extend(plan())
        except Exception as error:  # a foreign graph can fail in any way: that is a finding
            findings.append(Finding(law, "runs", False, detail=_line(error)))
    return Verdict(path, seed, tuple(findings))


# -- input and comparison ------------------------------------------------------------------------------------------------


def probe(spec: Input, chunks: int, batch: int, rng: np.random.Generator) -> Array:
    """[chunks, batch, *chunk_shape]: sound-like PCM for integers (a gliding tone, noise and pauses), a drifting walk for floats."""
    shape = (batch, chunks * spec.chunk_shape[0], *spec.chunk_shape[1:])
    noise = rng.standard_normal(shape)
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "b":
        signal = noise > 0
    elif dtype.kind in "iu":
        along = [1, -1] + [1] * (len(shape) - 2)
        time = np.arange(shape[1]).reshape(along)
        pitch = rng.uniform(0.02, 0.2, (batch, *[1] * (len(shape) - 1)))
        loud = 0.5 + 0.5 * np.sin(pitch * time / 40)
        sound = (np.sin(pitch * time + 8 * np.sin(pitch * time / 300)) + 0.1 * noise) * np.maximum(loud - 0.2, 0.01)
        info = np.iinfo(dtype)
        signal = np.clip(
            np.round(sound * 0.1 * info.max + (info.max // 2 if dtype.kind == "u" else 0)), info.min, info.max
        )
    else:
        signal = noise + 0.1 * np.cumsum(rng.standard_normal(shape), axis=1)
    split = signal.astype(dtype).reshape(batch, chunks, *spec.chunk_shape)
    return np.ascontiguousarray(np.moveaxis(split, 1, 0))


def deviation(got: Array, want: Array) -> float:
    """Largest difference relative to the largest value of its step (last axis); infinite when shapes or finiteness differ."""
    if got.shape != want.shape or not np.array_equal(np.isfinite(got), np.isfinite(want)):
        return float("inf")
    if got.size == 0 or np.array_equal(got, want, equal_nan=got.dtype.kind == "f"):
        return 0.0
    a, b = (
        np.where(np.isfinite(got), got, 0).astype(np.float64),
        np.where(np.isfinite(want), want, 0).astype(np.float64),
    )
    largest = float(np.max(np.abs(b)))
    # a step that is nearly zero beside the others is measured against the others
    scale = np.maximum(np.max(np.abs(b), axis=-1, keepdims=True), 1e-2 * largest)
    return float(np.max(np.abs(a - b) / np.maximum(scale, 1e-12)))


def _worst(got: Mapping[str, Array], want: Mapping[str, Array]) -> tuple[float, bool, str]:
    """Over all tensors: (worst deviation, whether everything is equal bit for bit, name of the worst)."""
    each = {name: deviation(got[name], want[name]) for name in want}
    name = max(each, key=lambda key: each[key])
    return each[name], all(got[key].tobytes() == want[key].tobytes() for key in want), name


def _run(model: Model, chunks: Array, state: Arrays | None = None) -> tuple[Arrays, Arrays]:
    """``chunks`` [n, batch, ...] one after another. Returns outputs [n, batch, ...] by name and the state after them."""
    manifest = model.manifest
    state = model.zero_state(chunks.shape[1]) if state is None else state
    outputs: dict[str, list[Array]] = {output.name: [] for output in manifest.outputs}
    for chunk in chunks:
        got = model.run({manifest.input.name: chunk, **state})
        state = {pair.in_: np.array(got[pair.out]) for pair in manifest.states}
        for name, column in outputs.items():
            column.append(np.array(got[name]))
    return {name: np.stack(column) for name, column in outputs.items()}, state


def _rows(arrays: Mapping[str, Array], rows: Any, axis: int = 0) -> Arrays:
    return {name: np.ascontiguousarray(np.take(array, rows, axis=axis)) for name, array in arrays.items()}


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


# -- the contract ----------------------------------------------------------------------------------------------------------


def _contract(model: Model) -> Iterator[Finding]:
    manifest = model.manifest
    rng = np.random.default_rng(0)
    sizes = sorted({1, 2, manifest.max_batch})
    shapes = ""
    for size in sizes:
        outputs, state = _run(model, probe(manifest.input, 1, size, rng))
        for name, array in (*((o.name, outputs[o.name][0]) for o in manifest.outputs), *state.items()):
            want = next(
                [s.shape for s in manifest.states if s.in_ == name]
                + [o.shape for o in manifest.outputs if o.name == name]
                for _ in (0,)
            )[0]
            if array.shape != (size, *want):
                shapes = f"{name} is {array.shape} at batch {size}, the manifest says {(size, *want)}"
    yield Finding("contract", "batch axis is free", not shapes, detail=shapes or f"batches of {sizes}")

    wrong = []
    for change in (-1, 1):
        shape = (1, manifest.chunk + change, *manifest.input.chunk_shape[1:])
        try:
            model.run({manifest.input.name: np.zeros(shape, manifest.input.dtype), **model.zero_state(1)})
            wrong.append(shape[1])
        except Exception:  # whichever error the engine gives: an answer would be the fault
            continue
    yield Finding("contract", "wrong chunk length is an error", not wrong, detail=f"accepted {wrong}" if wrong else "")

    try:
        task = tasks.create(manifest)
        memory = task.open({})
        outputs = {
            o.name: o_chunks[0].array() for o in manifest.outputs for o_chunks in [manifest.golden.outputs[o.name]]
        }
        task.step([memory], outputs, [manifest.steps])
        saved = task.save(memory)
        same = task.save(task.load(saved)) == saved
        detail = manifest.task if same else "the task's memory is not what it was after save and load"
        yield Finding("contract", "task options", same, detail=detail)
    except (ValueError, KeyError, TypeError, RuntimeError, LookupError) as error:
        yield Finding("contract", "task options", False, detail=_line(error))


# -- law 1 -----------------------------------------------------------------------------------------------------------------


def _golden(model: Model) -> Iterator[Finding]:
    golden, reached = model.manifest.golden, model.manifest.provenance.tolerance
    chunks = np.stack([tensor.array() for tensor in golden.chunks])
    want = {name: np.stack([tensor.array() for tensor in tensors]) for name, tensors in golden.outputs.items()}
    got, _ = _run(model, chunks)
    worst, equal, name = _worst(got, want)
    # float32 files reach far below the law's tolerance; quantised ones say how far they landed, kernels may double it
    tolerance = max(CHUNK_TOLERANCE, 2 * reached)
    detail = f"{len(chunks)} chunks against PyTorch's whole sequence, worst in {name}"
    if reached > CHUNK_TOLERANCE:
        detail += f"; quantised: {reached:.1%} from float32 at export"
    yield Finding(
        "chunk", "golden example", worst <= tolerance and reached <= QUANTISED_LIMIT, worst, tolerance, detail
    )
    silent = [key for key, array in want.items() if array.size < 2 or np.ptp(array.astype(np.float64)) == 0]
    proves = len(chunks) >= 2 and not silent
    why = "" if proves else f"one chunk only, or constant outputs {silent}: it proves nothing"
    yield Finding("chunk", "golden example proves memory", proves, detail=why or f"{len(chunks)} chunks")


# -- law 2 -----------------------------------------------------------------------------------------------------------------


def _company(model: Model, rng: np.random.Generator) -> Iterator[Finding]:
    """Real streams of different ages run alone, then beside each other and beside poison; rows must not change."""
    spec, limit = model.manifest.input, model.manifest.max_batch
    streams, length = min(8, limit), 3
    signal = probe(spec, length + 3, streams, rng)
    aged, alone = [], []
    for i in range(streams):
        age = i % 4
        state = _run(model, signal[:age, i : i + 1])[1] if age else model.zero_state(1)
        outputs, after = _run(model, signal[age : age + length, i : i + 1], state)
        aged.append(state)
        alone.append(_flat(outputs, after))
    chunks = np.stack([signal[i % 4 : i % 4 + length, i] for i in range(streams)], axis=1)
    states = {name: np.concatenate([state[name] for state in aged]) for name in aged[0]}

    def compare(check: str, batch: Array, state: Arrays, where: Mapping[int, int], said: str) -> Finding:
        outputs, after = _run(model, batch, state)
        worst, equal, at = 0.0, True, ""
        for row, stream in where.items():
            got = _flat(_rows(outputs, [row], axis=1), _rows(after, [row]))
            one, same, name = _worst(got, alone[stream])
            equal &= same
            if one > worst:
                worst, at = one, f", worst in {name} at row {row} of {batch.shape[1]}"
        detail = (
            f"{said}; {'bit for bit' if equal else 'rounding only' if worst <= COMPANY_TOLERANCE else 'differs'}{at}"
        )
        return Finding("company", check, worst <= COMPANY_TOLERANCE, worst, COMPANY_TOLERANCE, detail)

    if limit == 1:
        yield Finding("company", "alone", True, detail="max_batch is 1: never in company")
        return
    for size in sorted({2, 3, 5, 8, limit} - set(range(limit + 1, 9))):
        order = np.arange(size) % streams
        where = dict(enumerate(order.tolist()))
        yield compare(
            f"batch of {size}", chunks[:, order], _rows(states, order), where, "every row, streams of different ages"
        )
    for name, neighbour, neighbour_state in _poisons(model, signal[:length, 0], rng):
        size = min(limit, 8)
        worst: Finding | None = None
        for keep in (0, size // 2, size - 1):
            batch = np.stack([neighbour] * size, axis=1)
            batch[:, keep] = chunks[:, -1]
            state = {key: np.concatenate([array] * size) for key, array in neighbour_state.items()}
            for key in state:
                state[key][keep] = states[key][-1]
            found = compare(
                f"beside {name}", batch, state, {keep: streams - 1}, f"rows 0, {size // 2}, {size - 1} of {size}"
            )
            worst = found if worst is None or (found.measured or 0) > (worst.measured or 0) or not found.ok else worst
        if worst is not None:
            yield worst
    # a slot somebody just left: the state rows are zeroed in place, as the engine does, and a new stream starts there
    used = _run(model, chunks[:, : min(2, streams)], _rows(states, range(min(2, streams))))[1]
    for array in used.values():
        array[0] = 0
    fresh = np.concatenate([signal[:length, :1], chunks[:, 1 : min(2, streams)]], axis=1)
    found = compare("slot just left", fresh, used, {0: 0}, "state zeroed in place, neighbour goes on")
    yield found


def _flat(outputs: Arrays, state: Arrays) -> Arrays:
    return {**outputs, **{f"state {name}": array for name, array in state.items()}}


def _poisons(model: Model, sound: Array, rng: np.random.Generator) -> Iterator[tuple[str, Array, Arrays]]:
    """Neighbours [n, ...] with their state [1, ...]: what the worst client or a broken stream could put into a batch."""
    dtype = np.dtype(model.manifest.input.dtype)
    zero = model.zero_state(1)
    if dtype.kind == "f":
        low, high, scaled = dtype.type(-3e38), dtype.type(3e38), (sound * 100).astype(dtype)
        broken = np.full_like(sound, np.nan)
    else:
        info = np.iinfo(dtype) if dtype.kind in "iu" else None
        low, high = (dtype.type(info.min), dtype.type(info.max)) if info else (dtype.type(0), dtype.type(1))
        scaled = np.clip(sound.astype(np.int64) * 100, low, high).astype(dtype)
        broken = np.full_like(sound, high)
    extreme = np.where(rng.random(sound.shape) < 0.5, low, high).astype(dtype)

    def filled(value: float) -> Arrays:
        return {key: np.full_like(a, value if a.dtype.kind == "f" else 1) for key, a in zero.items()}

    yield "zero rows (padding)", np.zeros_like(sound), zero
    yield "NaN", broken, filled(np.nan)
    yield "infinity", broken, filled(np.inf)
    yield "extreme values", extreme, zero
    yield "100 times louder", scaled, filled(1e6)


# -- law 3 -----------------------------------------------------------------------------------------------------------------


def _sleep(model: Model, rng: np.random.Generator) -> Iterator[Finding]:
    length, batch = 6, min(2, model.manifest.max_batch)
    chunks = probe(model.manifest.input, length, batch, rng)
    whole = _flat(*_run(model, chunks))
    again = _flat(*_run(model, chunks))
    _, equal, name = _worst(again, whole)
    yield Finding("sleep", "same input, same bits", equal, detail="" if equal else f"{name} differs from run to run")
    reloaded = Model.load(model.path)
    broken = []
    for point in (1, 3, length - 1):
        before, state = _run(model, chunks[:point])
        saved = {key: (array.tobytes(), array.dtype, array.shape) for key, array in state.items()}
        restored = {
            key: np.frombuffer(data, dtype).reshape(shape).copy() for key, (data, dtype, shape) in saved.items()
        }
        after, end = _run(reloaded, chunks[point:], restored)
        joined = _flat({key: np.concatenate([before[key], after[key]]) for key in before}, end)
        _, equal, name = _worst(joined, whole)
        if not equal:
            broken.append(f"{name} after a snapshot at chunk {point}")
    detail = "; ".join(broken) or "states through bytes into a newly loaded file, at chunks 1, 3 and 5: bit for bit"
    yield Finding("sleep", "snapshot, load, go on", not broken, detail=detail)


# -- a long life -------------------------------------------------------------------------------------------------------------


def _endurance(model: Model, rng: np.random.Generator, length: int) -> Iterator[Finding]:
    """Silence, full scale and noise, one after another: finite outputs, states that stay where float32 still counts."""
    spec = model.manifest.input
    sound = probe(spec, 1, 1, rng)[0]
    silence, extreme = np.zeros_like(sound), next(c for n, c, _ in _poisons(model, sound, rng) if n == "extreme values")
    if np.dtype(spec.dtype).kind == "f":
        extreme = np.where(extreme > 0, 1e6, -1e6).astype(spec.dtype)
    state, fault = model.zero_state(1), ""
    sizes: list[dict[str, float]] = []
    for number in range(length):
        kind = (number * 5) // length % 3
        chunk = (sound, silence, extreme)[kind]
        outputs, state = _run(model, chunk[None], state)
        tensors = _flat(outputs, state)
        sizes.append({key: float(np.max(np.abs(array.astype(np.float64)))) for key, array in state.items()})
        bad = [key for key, array in tensors.items() if not np.all(np.isfinite(array))]
        if bad:
            fault = f"{', '.join(bad)} not finite after {number + 1} chunks"
            break
    yield Finding("endurance", "finite on sound, silence, full scale", not fault, detail=fault or f"{length} chunks")
    growing = [key for key in state if sizes[-1][key] >= FLOAT_LIMIT] or _counters(model, state, sizes, sound)
    detail = f"{', '.join(growing)} grows without end" if growing else "states saturate"
    yield Finding("endurance", "states do not grow", not growing and not fault, detail=detail)


def _counters(model: Model, state: Arrays, sizes: list[dict[str, float]], sound: Array) -> list[str]:
    """Float states that grew as much in the second half as in the first count something. Put at 2^24, where float32 stops
    counting, an honest one (it saturates) falls back to its ceiling in one chunk and the others stay there."""
    half, end = sizes[len(sizes) // 2], sizes[-1]
    suspects = [key for key in state if state[key].dtype.kind == "f" and end[key] > 1.5 * half[key] > 0]
    stuck = []
    for key in suspects:
        aged = {**state, key: np.full_like(state[key], FLOAT_LIMIT)}
        _, after = _run(model, sound[None], aged)
        if not np.max(np.abs(after[key])) < 0.99 * FLOAT_LIMIT:
            stuck.append(key)
    return stuck


def describe(manifest: Manifest) -> str:
    """One line about what a file is: used by the commands."""
    seconds = f"{manifest.chunk_seconds:g} s" if manifest.chunk_seconds else f"{manifest.chunk} readings"
    return f"{manifest.name} {manifest.version}: {manifest.task}, chunks of {seconds}, {manifest.state_bytes / 1024:.1f} KiB a stream"
