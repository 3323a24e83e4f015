"""Which tensor is what, by names and shapes alone: the stream, memory and its way back, constants, results."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from export.adopt.report import AdoptionError, listed
from export.adopt.settings import Settings

__all__ = ["Port", "Roles", "assign", "key"]

#: Parts of a name that say which side of the call a state is on, not which state it is.
_BEFORE = {"in", "input", "prev", "previous", "old", "past", "init", "initial"}
_BEHIND = {"out", "output", "next", "new", "present", "updated"}
_STORED = {"cache", "cached"}
#: Inputs of this name are the stream, whatever output looks alike.
_STREAMS = {"input", "audio", "audio_signal", "signal", "pcm", "wav", "waveform", "speech", "mix", "noisy", "features"}
_RATES = {"sr", "fs", "rate", "sample_rate", "samplerate", "sampling_rate"}
_LENGTH = re.compile(r"((audio|audio_signal|signal|input|x|features?|feats)_)?(len|lens|length|lengths)")


@dataclass(frozen=True)
class Port:
    """An input or output as the file declares it; a size that is not fixed is its symbol, or ``None``."""

    name: str
    dtype: str
    dims: tuple[int | str | None, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} [{', '.join('?' if d is None else str(d) for d in self.dims)}]"


@dataclass
class Roles:
    """Names. ``lengths``: inputs that want the number of rows of the chunk. ``pairs``: state's input to its output."""

    stream: str
    pairs: dict[str, str]
    results: list[str]
    dropped: list[str] = field(default_factory=list)
    constants: dict[str, Any] = field(default_factory=dict)
    lengths: list[str] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)


def key(name: str, behind: bool) -> tuple[str, ...]:
    """What is left of a name without the words that say before or behind: ``new_cached_x`` and ``cached_x`` are one."""
    words = re.findall(r"[a-z]+|[0-9]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower())
    rest = tuple(word for word in words if word not in (_BEHIND if behind else _BEFORE))
    return tuple(word for word in rest if word not in _STORED) or rest


def assign(inputs: Sequence[Port], outputs: Sequence[Port], settings: Settings) -> Roles:
    """Raises :class:`AdoptionError` where names and shapes leave a choice, or leave an input without a value."""
    ins, outs = {port.name: port for port in inputs}, {port.name: port for port in outputs}
    constants = {name: value for name, value in settings.constants.items() if name in ins}
    counters = {name: step for name, step in settings.counters.items() if name in ins}
    free = [port for port in inputs if port.name not in constants and port.name not in counters]
    if settings.input.sample_rate is not None:
        rates = [port for port in free if _is_rate(port)]
        constants |= {port.name: settings.input.sample_rate for port in rates}
        free = [port for port in free if port not in rates]
    stream = _named_stream(free, settings)
    pairs = _given(ins, outs, settings.state)
    free = [port for port in free if port.name not in pairs and port.name != stream]
    _by_name(free, [port for port in outputs if port.name not in pairs.values()], pairs)
    free = [port for port in free if port.name not in pairs]
    lengths = [port.name for port in free if _LENGTH.fullmatch(port.name.lower()) and _whole(port, 1)]
    free = [port for port in free if port.name not in lengths]
    if stream is None:
        if not free:
            raise AdoptionError(
                "every input has a value or is a state by its name, so none takes the stream: say which does, "
                f"[input] name = one of {listed(list(ins))}"
            )
        stream = free.pop(0).name
    _by_shape(free, [port for port in outputs if port.name not in pairs.values()], pairs)
    rest = [port for port in free if port.name not in pairs]
    if rest:
        raise AdoptionError(_without_value(rest[0], outputs, stream))
    results, dropped = _results([port for port in outputs if port.name not in pairs.values()], settings)
    return Roles(stream, pairs, results, dropped, constants, lengths, counters)


def _named_stream(free: Sequence[Port], settings: Settings) -> str | None:
    names = [port.name for port in free]
    if settings.input.name is not None:
        if settings.input.name not in names:
            raise AdoptionError(
                f"[input] name = {settings.input.name!r} is no free input of the graph: {listed(names)} are"
            )
        return settings.input.name
    return next((name for name in names if name.lower() in _STREAMS), None)


def _given(ins: Mapping[str, Port], outs: Mapping[str, Port], said: Mapping[str, str]) -> dict[str, str]:
    pairs = {before: behind for before, behind in said.items() if before in ins}
    for before, behind in pairs.items():
        if behind not in outs:
            raise AdoptionError(f"[state] {before} = {behind!r}: the graph's outputs are {listed(list(outs))}")
        if not _alike(ins[before], outs[behind]):
            raise AdoptionError(
                f"[state] {before} = {behind!r}: {ins[before]} can't become {outs[behind]}; a state comes back as it "
                "went in"
            )
    return pairs


def _by_name(free: Sequence[Port], outputs: Sequence[Port], pairs: dict[str, str]) -> None:
    claims: dict[str, str] = {}
    for port in free:
        same = [o.name for o in outputs if _called_alike(port.name, o.name) and _alike(port, o)]
        if len(same) > 1:
            raise AdoptionError(
                f"the state {port.name} may come back as {' or '.join(same)}: say which, [state] {port.name} = ..."
            )
        if same:
            if same[0] in claims:
                raise AdoptionError(
                    f"the output {same[0]} may be the new {claims[same[0]]} or the new {port.name}: say which, "
                    f'[state] {port.name} = "{same[0]}"'
                )
            claims[same[0]] = port.name
    pairs |= {before: behind for behind, before in claims.items()}


def _by_shape(free: Sequence[Port], outputs: Sequence[Port], pairs: dict[str, str]) -> None:
    """An input and an output are a pair where neither looks like any other."""
    for port in free:
        same = [o for o in outputs if _alike(port, o)]
        rivals = [p.name for p in free if any(_alike(p, o) for o in same)]
        if len(same) > 1 or (same and len(rivals) > 1):
            raise AdoptionError(
                f"by their shapes the states {listed(rivals)} may come back as any of {listed([o.name for o in same])}"
                f', and their names do not tell: say which, [state] {port.name} = "..."'
            )
        if same:
            pairs[port.name] = same[0].name


def _called_alike(before: str, behind: str) -> bool:
    if behind[:-1] == before and behind[-1] in "nN":  # h, hn; state, stateN
        return True
    parts = key(before, False)
    return bool(parts) and parts == key(behind, True) and before != behind


def _alike(before: Port, behind: Port) -> bool:
    """Same type and rank, and no two sizes that differ. A size of 1 may be a batch that one side declares free."""
    if before.dtype != behind.dtype or len(before.dims) != len(behind.dims):
        return False
    sizes = zip(before.dims, behind.dims, strict=True)
    return all(a == b or not isinstance(a, int) or not isinstance(b, int) for a, b in sizes)


def _whole(port: Port, rank: int) -> bool:
    return port.dtype in ("int32", "int64") and len(port.dims) <= rank


def _is_rate(port: Port) -> bool:
    return port.name.lower() in _RATES and _whole(port, 1)


def _results(rest: Sequence[Port], settings: Settings) -> tuple[list[str], list[str]]:
    keep, drop = settings.outputs.keep, settings.outputs.drop
    names = [port.name for port in rest]
    unknown = [name for name in keep if name not in names]
    if unknown and set(unknown) == set(keep):
        keep = ()  # they are of the other file of a chain
    elif unknown:
        raise AdoptionError(f"[outputs] keep: {listed(unknown)} is no result of the graph, {listed(names)} are")
    if keep:
        results = list(keep)
    else:
        # lengths of what came out, one whole number a stream: the daemon knows them
        results = [port.name for port in rest if port.name not in drop and not _whole(port, 1)]
    if not results:
        raise AdoptionError("no output is left that is no state: [outputs] keep = [...] says which are results")
    return results, [name for name in names if name not in results]


def _without_value(port: Port, outputs: Sequence[Port], stream: str) -> str:
    if _is_rate(port):
        return f"the input {port} takes the sample rate, which nobody said: [input] sample_rate = Hz"
    return (
        f"no state pair found for the input {port}: of the outputs {listed([str(o) for o in outputs])} none has its "
        f'type and shape. If it is memory say [state] {port.name} = "...", if it never changes '
        f"[constants] {port.name} = ..., if it counts [counters] {port.name} = (what a call adds), and if it is the "
        f'stream, for which {stream} was taken, [input] name = "{port.name}"'
    )
