"""Assigns roles to tensors by settings, graph, names and shapes: streams, state pairs, constants, outputs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from export.adopt.flow import GraphFlow
from export.adopt.questions import Questions, quoted
from export.adopt.report import AdoptionError, listed
from export.adopt.settings import AdoptSettings

__all__ = ["Port", "Roles", "assign", "key"]

#: Parts of a state's name that only distinguish its input from its output.
_BEFORE = {"in", "input", "prev", "previous", "old", "past", "init", "initial", "start"}
_AFTER = {"out", "output", "next", "new", "present", "updated", "final", "last", "end"}
_STORED = {"cache", "cached"}
#: Endings of names that number a step, of the input and of the output: ``h_0`` and ``h_n`` or ``h_1``, ``h_t`` and
#: ``h_t1``.
_STEPS = ((("0",), ("n",)), (("0",), ("1",)), (("t",), ("t", "1")), ((), ("n",)), (("tm", "1"), ("t",)), (("t",), ()))
#: An input with one of these names is the stream, even if an output has the same shape.
_STREAMS = {"input", "audio", "audio_signal", "signal", "pcm", "wav", "waveform", "speech", "mix", "noisy", "features"}
_STREAMS |= {"x", "ids", "tokens", "obs", "observation", "wav_in", "spec_in", "input_frame"}
#: Words in the name of an input that is set once for a stream.
_CONDITIONS = {
    "speaker",
    "spk",
    "spkemb",
    "dvec",
    "dvector",
    "embed",
    "embedding",
    "condition",
    "cond",
    "ecapa",
    "xvector",
}
_RATES = {"sr", "fs", "rate", "sample_rate", "samplerate", "sampling_rate"}
_LENGTH = re.compile(r"((audio|audio_signal|signal|input|x|features?|feats)_)?(len|lens|length|lengths)")


@dataclass(frozen=True)
class Port:
    """An input or output as the file declares it. A dynamic size is its symbol, or ``None`` without a symbol."""

    name: str
    dtype: str
    dims: tuple[int | str | None, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} [{', '.join('?' if d is None else str(d) for d in self.dims)}]"


@dataclass
class Roles:
    """The roles, by name. ``pairs``: a state's input -> its output. ``how``: a state's input -> how its pair was found:
    ``settings``, ``graph``, ``name``, ``shape`` or ``arithmetic``. ``results`` and ``dropped``: the other outputs.
    ``lengths``: inputs that take the number of rows of a chunk. ``counters``: input -> its increment in each call.
    ``streams``: further inputs with rows of the stream. ``conditions``: inputs that are set once for a stream."""

    stream: str
    pairs: dict[str, str]
    results: list[str]
    dropped: list[str] = field(default_factory=list)
    constants: dict[str, Any] = field(default_factory=dict)
    lengths: list[str] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    how: dict[str, str] = field(default_factory=dict)
    streams: list[str] = field(default_factory=list)
    conditions: list[str] = field(default_factory=list)


def _words(name: str) -> tuple[str, ...]:
    """The lower-case words and numbers of a name: ``newCache_2`` -> new, cache, 2."""
    return tuple(re.findall(r"[a-z]+|[0-9]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()))


def key(name: str, after: bool) -> tuple[str, ...]:
    """The words of a name without those for before or after a call (``after``): ``new_cached_x`` and ``cached_x`` have
    the same key."""
    words = _words(name)
    rest = tuple(word for word in words if word not in (_AFTER if after else _BEFORE))
    return tuple(word for word in rest if word not in _STORED) or rest


def assign(
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    settings: AdoptSettings,
    flow: GraphFlow | None = None,
    asked: Questions | None = None,
) -> Roles:
    """Assign the roles. ``flow``: the graph's data flow. ``asked``: collects questions; ``None``: open questions are
    raised as :class:`OpenQuestionsError`.

    Raises :class:`AdoptionError` for settings that do not fit the graph.
    """
    questions = Questions() if asked is None else asked
    ins, outs = {port.name: port for port in inputs}, {port.name: port for port in outputs}
    constants = {name: value for name, value in settings.constants.items() if name in ins}
    counters = {name: step for name, step in settings.counters.items() if name in ins}
    free = [port for port in inputs if port.name not in constants and port.name not in counters]
    if settings.input.sample_rate is not None:
        rates = [port for port in free if _is_rate(port)]
        constants |= {port.name: settings.input.sample_rate for port in rates}
        free = [port for port in free if port not in rates]
    conditions = [name for name in settings.input.conditions if name in ins]
    more_streams = [name for name in settings.streams if name in ins]
    free = [port for port in free if port.name not in conditions and port.name not in more_streams]
    pairs = _from_settings(ins, outs, settings.state)
    how = dict.fromkeys(pairs, "settings")

    def left() -> tuple[list[Port], list[Port]]:
        states = [port for port in free if port.name not in pairs and port.name != stream]
        return states, [port for port in outputs if port.name not in pairs.values()]

    def found(more: Mapping[str, str], by: str) -> None:
        pairs.update(more)
        how.update(dict.fromkeys(more, by))

    stream = settings.input.name
    if stream is not None and stream not in [port.name for port in free]:
        raise AdoptionError(
            f"[input] name = {stream!r} is not a free input of the graph, whose free inputs are "
            f"{listed([port.name for port in free])}"
        )
    if flow is not None:
        found(_by_graph(*left(), flow), "graph")
    if stream is None:
        names = [port.name for port in free if port.name not in pairs]
        stream = next((name for name in names if name.split(".")[0].lower() in _STREAMS), None)
    found(_by_name(*left()), "name")
    lengths = [port.name for port in left()[0] if _LENGTH.fullmatch(port.name.lower()) and _is_integer(port, 1)]
    free = [port for port in free if port.name not in lengths]
    if stream is None:
        stream = _stream(*left(), list(ins))
    found(_by_shape(*left()), "shape")
    if flow is not None:
        found(_by_arithmetic(*left(), flow), "arithmetic")
    guessed = [
        port.name for port in left()[0] if _is_condition(port) and not any(_compatible(port, o) for o in left()[1])
    ]
    conditions += guessed
    alongside = [port.name for port in left()[0] if port.name not in guessed and _shares_time(port, ins[stream])]
    more_streams += alongside
    free = [port for port in free if port.name not in guessed and port.name not in alongside]
    if flow is not None:
        _refuse_backward(pairs, flow)
        _refuse_unused([*pairs, *(port.name for port in left()[0])], flow)
    _ask_open(*left(), stream, questions)
    results, dropped = _results([port for port in outputs if port.name not in pairs.values()], settings)
    if asked is None:
        questions.settle()
    return Roles(stream, pairs, results, dropped, constants, lengths, counters, how, more_streams, conditions)


def _stream(free: Sequence[Port], outputs: Sequence[Port], names: list[str]) -> str:
    """The stream: the first input that can't be a state, else the first input."""
    if not free:
        raise AdoptionError(
            "every input has a value or is a state, so none takes the stream: say which one does, "
            f"[input] name = one of {listed(names)}"
        )
    alone = [port for port in free if not any(_compatible(port, output) for output in outputs)]
    return (alone or list(free))[0].name


def _from_settings(ins: Mapping[str, Port], outs: Mapping[str, Port], state: Mapping[str, str]) -> dict[str, str]:
    pairs = {before: after for before, after in state.items() if before in ins}
    for before, after in pairs.items():
        if after not in outs:
            raise AdoptionError(f"[state] {before} = {after!r}: the graph's outputs are {listed(list(outs))}")
        if not _compatible(ins[before], outs[after]):
            raise AdoptionError(
                f"[state] {before} = {after!r}: {ins[before]} can't become {outs[after]}; a state comes back as it "
                "went in"
            )
    return pairs


def _by_graph(free: Sequence[Port], outputs: Sequence[Port], flow: GraphFlow) -> dict[str, str]:
    """Pairs by recurrent operators. If an operator's state is several outputs, names decide."""
    shapes = {port.name: port for port in outputs}
    claims: dict[str, str] = {}
    for port in free:
        ends = [name for name in flow.carried(port.name) if name in shapes and _compatible(port, shapes[name])]
        if len(ends) > 1:
            ends = [name for name in ends if _similar_name(port.name, name)]
        if len(ends) == 1:
            claims[port.name] = ends[0]
    ends = list(claims.values())
    return {before: after for before, after in claims.items() if ends.count(after) == 1}


def _by_name(free: Sequence[Port], outputs: Sequence[Port]) -> dict[str, str]:
    """Pairs by names: first names that differ only in words for before and after, then names that number a step."""
    pairs: dict[str, str] = {}
    for called in (_same_name, _similar_name):
        claims = {
            port.name: [
                o.name
                for o in outputs
                if o.name not in pairs.values() and called(port.name, o.name) and _compatible(port, o)
            ]
            for port in free
            if port.name not in pairs
        }
        ends = [name for names in claims.values() for name in names]
        pairs |= {before: names[0] for before, names in claims.items() if len(names) == 1 and ends.count(names[0]) == 1}
    return pairs


def _by_shape(free: Sequence[Port], outputs: Sequence[Port]) -> dict[str, str]:
    """Pairs by shapes that only one input and one output have."""
    pairs = {}
    for port in free:
        same = [o for o in outputs if _compatible(port, o)]
        if len(same) == 1 and [p for p in free if _compatible(p, same[0])] == [port]:
            pairs[port.name] = same[0].name
    return pairs


def _by_arithmetic(free: Sequence[Port], outputs: Sequence[Port], flow: GraphFlow) -> dict[str, str]:
    """Pairs of states that share a shape, by the shortest path through the graph. None at all unless there are as many
    outputs of the shape as states, and the paths say what the order of the tensors says.

    A path alone is no proof: a result may be nearer to a state than its next value (``x - last, x``), and the next
    value of a delay or of a rotation does not depend on the state itself. A wrong pair would not be noticed.
    """
    pairs: dict[str, str] = {}
    for port in free:
        ends = [o for o in outputs if _compatible(port, o)]
        if not ends:
            continue
        rivals = [p for p in free if any(_compatible(p, o) for o in ends)]
        if len(ends) != len(rivals) or not all(_compatible(p, o) for p in rivals for o in ends):
            return {}
        costs = flow.costs(port.name)
        ranked = sorted((costs[o.name], o.name) for o in ends if o.name in costs)
        in_order = ends[rivals.index(port)].name
        if not ranked or ranked[0][1] != in_order or (len(ranked) > 1 and ranked[0][0] == ranked[1][0]):
            return {}
        pairs[port.name] = in_order
    return pairs


def _same_name(before: str, after: str) -> bool:
    """Whether the names differ only in words for before and after."""
    parts = key(before, False)
    if parts and parts == key(after, True) and before != after:
        return True
    # cache_last_channel_len, cache_last_channel_next_len: "last" is a word for after, but both names have it
    words, whole = _words(after), _words(before)
    return any(word in _AFTER and words[:at] + words[at + 1 :] == whole for at, word in enumerate(words))


def _similar_name(before: str, after: str) -> bool:
    """Whether the names are the same, or number consecutive steps."""
    if _same_name(before, after) or (after[:-1] == before and after[-1] in "nN"):  # h, hn; state, stateN
        return True
    if len(before) > 1 and before[:-1] == after[:-1] and (before[-1], after[-1]) in (("0", "n"), ("0", "N")):
        return True
    first, last = key(before, False), key(after, True)
    return any(
        len(first) > len(a) and first[len(first) - len(a) :] == a and (*first[: len(first) - len(a)], *b) == last
        for a, b in _STEPS
    )


def _ask_open(free: Sequence[Port], outputs: Sequence[Port], stream: str, asked: Questions) -> None:
    """Ask about inputs without a role."""
    for port in free:
        if _is_rate(port):
            asked.ask("input", "sample_rate = 16000", f"{port} takes the sample rate")
            continue
        same = [o.name for o in outputs if _compatible(port, o)]
        if same:
            rivals = [p.name for p in free if p != port and any(_compatible(p, o) for o in outputs if o.name in same)]
            others = f", as does {listed(rivals)}" if rivals else ""
            # proposed is the usual order, results first, then the states
            alike = [p.name for p in free if p == port or p.name in rivals]
            place = max(0, len(same) - len(alike)) + alike.index(port.name)
            asked.ask(
                "state",
                f'{quoted(port.name)} = "{same[min(place, len(same) - 1)]}"',
                f"{port} may come back as {' or '.join(same[:6])}{others}, and graph and names leave it open",
            )
        else:
            shown = listed([str(o) for o in outputs]) or "none"
            asked.ask(
                "constants",
                f"{quoted(port.name)} = {'0' if _has_integers(port) else '0.0'}",
                f"{port} has no value: no remaining output ({shown}) has its type and shape. If it is constant, keep "
                f'the next line. If it is a state, say [state] {port.name} = "..." instead; if it is a counter, '
                f"[counters] {port.name} = (its increment in a call); if a client sets it once for a stream, [input] "
                f'conditions = ["{port.name}"]; if it has as many rows as {stream}, [streams] {port.name} = (its time '
                f'axis); if it is the stream instead of {stream}, [input] name = "{port.name}"',
            )


def _compatible(before: Port, after: Port) -> bool:
    """Whether type and rank are equal, and no two fixed sizes differ."""
    if before.dtype != after.dtype or len(before.dims) != len(after.dims):
        return False
    sizes = zip(before.dims, after.dims, strict=True)
    return all(a == b or not isinstance(a, int) or not isinstance(b, int) for a, b in sizes)


def _is_integer(port: Port, rank: int) -> bool:
    return port.dtype in ("int32", "int64") and len(port.dims) <= rank


def _has_integers(port: Port) -> bool:
    return port.dtype.startswith(("int", "uint"))


def _refuse_unused(names: Sequence[str], flow: GraphFlow) -> None:
    """Raises :class:`AdoptionError` for states that the graph does not use."""
    idle = [name for name in names if flow.unused(name)]
    if idle:
        raise AdoptionError(
            f"nothing in the graph uses the input {listed(idle)}. Was one tensor given twice to torch.onnx.export? It "
            "merges inputs that are the same object: give every state its own zeros. If the input is really unused, "
            f"say [constants] {quoted(idle[0])} = 0"
        )


def _refuse_backward(names: Iterable[str], flow: GraphFlow) -> None:
    """Raises :class:`AdoptionError` for a state from which a backward direction starts."""
    for node, name in flow.backward(names):
        raise AdoptionError(
            f"{node.op_type} {node.name or node.outputs[0].name} has a backward direction, which starts from the state "
            f"{name}. It reads the rows of a call from the last to the first, so what it ends with lies before the "
            "call, and is no start for the next one. Export the model with the forward direction alone, or with the "
            "state of the forward direction alone and zeros for the other one"
        )


def _is_condition(port: Port) -> bool:
    parts = key(port.name, False)
    words = {*parts, "".join(parts)}
    return not _has_integers(port) and bool(words & _CONDITIONS)


def _shares_time(port: Port, stream: Port) -> bool:
    """Whether both have an axis with the same dynamic size, apart from axis 0."""

    def open_axes(of: Port) -> set[str]:
        return {size for axis, size in enumerate(of.dims) if isinstance(size, str) and axis > 0}

    return bool(open_axes(port) & open_axes(stream))


def _is_rate(port: Port) -> bool:
    return port.name.lower() in _RATES and _is_integer(port, 1)


def _results(rest: Sequence[Port], settings: AdoptSettings) -> tuple[list[str], list[str]]:
    """The results and the dropped outputs among the outputs that are no states."""
    keep, drop = settings.outputs.keep, settings.outputs.drop
    names = [port.name for port in rest]
    unknown = [name for name in keep if name not in names]
    if unknown and set(unknown) == set(keep):
        keep = ()  # they belong to the other file of a chain
    elif unknown:
        raise AdoptionError(
            f"[outputs] keep: {listed(unknown)} is not a result of the graph, whose results are {listed(names)}"
        )
    if keep:
        results = list(keep)
    else:
        # lengths of outputs, one integer for each stream, are dropped: the daemon knows them
        results = [port.name for port in rest if port.name not in drop and not _is_integer(port, 1)]
    if not results:
        raise AdoptionError("every output that is left is a state: name the results, [outputs] keep = [...]")
    return results, [name for name in names if name not in results]
