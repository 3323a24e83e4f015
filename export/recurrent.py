"""Modules whose ``forward`` takes no state: the states of PyTorch's recurrent layers are passed in and out.

``nn.LSTM``, ``nn.GRU`` and ``nn.RNN`` start from zeros in every call without a state. Here they get the state after the
call before; nothing else of the module changes. The chunk law, checked against the unchanged module on a whole
sequence, shows that the module has no other memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from export.forward import ExportError, Forward, bind, leaves

__all__ = ["Carried", "carried", "optional_state", "remembers", "three_lines"]

Recurrent = (nn.LSTM, nn.GRU, nn.RNN)
States = dict[str, tuple[Tensor, ...]]


class Carried(nn.Module):
    """``module`` with the states of its recurrent layers as an argument and a second result."""

    def __init__(self, module: nn.Module, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.module = module
        self._layers = dict(layers)  # a plain dictionary: the layers are already registered inside the module

    def forward(self, carried: States, **given: Tensor) -> tuple[Any, States]:
        new: States = {}
        with _passing(self._layers, carried, new):
            result = self.module(**given)
        return result, {name: new[name] for name in carried}


@contextmanager
def _passing(layers: Mapping[str, nn.Module], old: States | None, new: States) -> Iterator[None]:
    """Hook the layers: they start from the states ``old`` (``None``: from zeros), and their new states go to ``new``.
    Raises :class:`ExportError` during a call that does not allow this."""

    def before(name: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            hidden = args[1] if len(args) > 1 else kwargs.get("hx")
            if getattr(layer, "bidirectional", False):
                raise ExportError(
                    f"{name} is bidirectional: its second direction begins at the end, which a stream does not have"
                )
            if hidden is not None or name in new:
                raise ExportError(f"{name} is called {'twice' if name in new else 'with a state that starts inside'}")
            if old is None:
                return None
            state = old[name] if isinstance(layer, nn.LSTM) else old[name][0]
            return (args[0] if args else kwargs["input"], state), {}

        return hook

    def after(name: str) -> Any:
        def hook(layer: nn.Module, args: Any, result: Any) -> None:
            new[name] = result[1] if isinstance(result[1], tuple) else (result[1],)

        return hook

    handles = []
    try:
        for name, layer in layers.items():
            handles.append(layer.register_forward_pre_hook(before(name), with_kwargs=True))
            handles.append(layer.register_forward_hook(after(name)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def carried(
    module: nn.Module, inputs: Mapping[str, Tensor], conditions: Mapping[str, Tensor]
) -> tuple[Forward, list[Tensor]] | None:
    """The module with its recurrent layers' states passed in and out, and zeros for them; ``None`` if no recurrent
    layer is called. Raises :class:`ExportError` for a layer whose state can't be passed."""
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, Recurrent)}
    given = {**inputs, **conditions}
    start: States = {}
    with torch.no_grad(), _passing(layers, None, start):
        plain = module(**given)
    if not start:
        return None
    wrapped = Carried(module, {name: layers[name] for name in start})
    zeros = {name: tuple(torch.zeros_like(t) for t in state) for name, state in start.items()}
    with torch.no_grad():
        result = wrapped(zeros, **given)
    found = leaves(result)
    outputs = [i for i, (path, leaf) in enumerate(found) if path[0] == 0 and isinstance(leaf, Tensor)]
    names = ["output" if len(outputs) == 1 else f"output.{i}" for i in range(len(outputs))]
    states, spec = pytree.tree_flatten(zeros)
    state_names = tuple(
        f"{name or 'state'}.{part}" for name, state in zeros.items() for part in ("h", "c")[: len(state)]
    )
    if not all(torch.equal(a, found[i][1]) for a, i in zip(_tensors(plain), outputs, strict=True)):
        raise ExportError("its recurrent layers give other outputs with a state of zeros than without a state")
    where = tuple(i for i, (path, _) in enumerate(found) if path[0] == 1)
    return (
        Forward(
            wrapped,
            tuple(inputs),
            tuple(conditions),
            ("carried",),
            spec,
            state_names,
            tuple(names),
            where,
            tuple(outputs),
        ),
        states,
    )


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def optional_state(
    module: nn.Module, inputs: Mapping[str, Tensor], conditions: Mapping[str, Tensor]
) -> tuple[Forward, list[Tensor]] | None:
    """For ``forward(x, state=None) -> y, state``: its call, and zeros of the returned state's structure. ``None`` if
    that does not give the same outputs as a call without a state."""
    with torch.no_grad():
        result = module(**inputs, **conditions)
    if not isinstance(result, tuple | list) or len(result) < 2:
        return None
    zeros = pytree.tree_map(lambda t: torch.zeros_like(t) if isinstance(t, Tensor) else t, result[-1])
    if not _tensors(zeros):
        return None
    try:
        forward, states = bind(module, inputs, conditions, zeros)
    except ExportError:
        return None
    with torch.no_grad():
        outputs, new = forward({**inputs, **conditions}, states)
    flat = pytree.tree_leaves(result)
    same = zip((*forward.where_outputs, *forward.where_states), (*outputs, *new), strict=True)
    return (forward, states) if all(torch.equal(flat[i], tensor) for i, tensor in same) else None


def remembers(module: nn.Module, call: Callable[[], Any]) -> list[str]:
    """Names of the module's tensors and numbers that a call changes, such as ``self.h``. Changes by the first call
    alone (a table of sines) do not count."""

    def held() -> dict[str, Any]:
        found: dict[str, Any] = dict(module.named_buffers())
        for name, part in module.named_modules():
            plain = {key: value for key, value in vars(part).items() if not key.startswith("_")}
            for path, leaf in leaves(plain):
                if isinstance(leaf, Tensor | int | float) or leaf is None:
                    found[".".join(str(p) for p in ((name, *path) if name else path))] = leaf
        return {key: leaf.clone() if isinstance(leaf, Tensor) else leaf for key, leaf in found.items()}

    with torch.no_grad():
        call()
        before = held()
        call()
    after = held()
    return sorted(name for name in {**before, **after} if not _same(before.get(name), after.get(name)))


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and torch.equal(a, b)
    return type(a) is type(b) and bool(a == b)


_LINES = {
    "recurrent": """\
    def forward(self, x, h, c):
        y, (h, c) = self.{name}(x, (h, c))
        return ..., h, c
export(module, x, (torch.zeros({layers}, 1, {hidden}), torch.zeros({layers}, 1, {hidden})), "net.onnx")""",
    "gate": """\
    def forward(self, x, h):
        y, h = self.{name}(x, h)
        return ..., h
export(module, x, torch.zeros({layers}, 1, {hidden}), "net.onnx")""",
    "conv": """\
    def forward(self, x, cache):  # the last {past} inputs of the call before, instead of padding
        x = torch.cat([cache, x], dim=2)
        return self.{name}(x), x[:, :, -{past}:]
export(module, x, torch.zeros(1, {channels}, {past}), "net.onnx")""",
    "attention": """\
    def forward(self, x, past):  # the last 64 steps of x, for keys and values
        past = torch.cat([past, x], dim=1)[:, -64:]
        return self.{name}(x, past, past)[0], past
export(module, x, torch.zeros(1, 64, {width}), "net.onnx")""",
    "any": """\
    def forward(self, x, state):
        ...
        return y, state
export(module, x, torch.zeros(...), "net.onnx")""",
}


def three_lines(module: nn.Module) -> str:
    """Code to write instead, for the first layer that needs a state."""
    for name, layer in module.named_modules():
        name = name or "layer"
        if isinstance(layer, nn.LSTM | nn.GRU | nn.RNN):
            kind = "recurrent" if isinstance(layer, nn.LSTM) else "gate"
            return _LINES[kind].format(name=name, layers=layer.num_layers, hidden=layer.hidden_size)
        if isinstance(layer, nn.LSTMCell | nn.GRUCell | nn.RNNCell):
            return _LINES["any"].replace("torch.zeros(...)", f"torch.zeros(1, {layer.hidden_size})")
        if isinstance(layer, nn.Conv1d) and layer.kernel_size[0] > 1:
            past = (layer.kernel_size[0] - 1) * layer.dilation[0]
            return _LINES["conv"].format(name=name, past=past, channels=layer.in_channels)
        if isinstance(layer, nn.MultiheadAttention):
            return _LINES["attention"].format(name=name, width=layer.embed_dim)
    return _LINES["any"]
