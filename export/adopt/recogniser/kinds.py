"""Families of public streaming recognisers: how each family's host cuts features into calls, and its further inputs.

A family is recognised by the names of inputs and by metadata, as in sherpa-onnx. A call takes ``window`` rows of
features and advances by ``shift``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.adopt.ops import Ops
from export.adopt.read import Foreign
from export.adopt.recogniser.frontend import KINDS, Frontend
from export.adopt.report import AdoptionError, Report, listed
from export.adopt.settings import AdoptSettings

__all__ = ["Kind", "kind_of"]

Feeds = dict[str, NDArray[Any]]
#: Types of k2's encoders. Their states are all outputs; conformers also have a counter, which the host keeps.
K2 = ("zipformer2", "zipformer", "lstm", "conformer", "ebranchformer")
#: Rows of features in one step of a conformer.
SUBSAMPLING = 4


@dataclass(frozen=True)
class Kind:
    """A recogniser of a known family. ``graph``: the encoder, including what the host computes for a call;
    ``settings``: its roles and sizes.

    ``given``: the host's further inputs of the original file in its n-th call, apart from features and states.
    ``single``: it has no batch. ``frontend``: ``None`` if it takes sound. ``last_is_blank``: the blank is the last
    token.
    """

    name: str
    graph: Foreign
    settings: AdoptSettings
    window: int
    shift: int
    frontend: Frontend | None
    given: Callable[[int], Feeds] = lambda call: {}
    single: bool = False
    last_is_blank: bool = False


def kind_of(encoder: Foreign, transducer: bool, settings: AdoptSettings, report: Report) -> Kind:
    """The family of a model. Raises :class:`AdoptionError` for an unknown family, or missing metadata."""
    names = {port.name for port in encoder.inputs}
    metadata = encoder.metadata
    if metadata.get("feature", "").lower() == "whisper":
        raise AdoptionError(f"{encoder.path.name} takes Whisper's features, which are not supported")
    if "attn_mask" in names and not transducer:
        kind = _wenet(encoder, settings)
    elif "cache_last_channel" in names:
        kind = _nemo(encoder, transducer, settings)
    elif "signal" in names and not transducer:
        kind = _t_one(encoder, settings)
    elif "x" in names and (transducer or metadata.get("model_type", "zipformer2") == "zipformer2"):
        kind = _k2(encoder, transducer, settings)
    else:
        raise AdoptionError(
            f"{encoder.path.name} takes {listed(sorted(names))}: that is not a streaming recogniser of k2, NeMo, WeNet "
            "or T-one. To adopt a single graph, give its file and a TOML file (docs/adopt.md)"
        )
    if kind.frontend is not None:
        frontend = _frontend(kind, settings)
        kind = replace(kind, frontend=frontend)
        report.found(f"{kind.name}: {kind.window} rows of {frontend.bins} features a call, {kind.shift} of them new")
    return kind


def _frontend(kind: Kind, settings: AdoptSettings) -> Frontend:
    """The frontend from the settings, else the family's, with the number of bins that the encoder takes."""
    name = settings.recogniser.frontend
    found = KINDS[name] if name is not None else kind.frontend
    assert found is not None
    port = next(port for port in kind.graph.inputs if port.name == kind.settings.input.name)
    axis = 1 if kind.settings.input.time == 2 else 2
    bins = port.dims[axis] if len(port.dims) == 3 else None
    return replace(found, bins=bins) if isinstance(bins, int) else found


# -- the families ------------------------------------------------------------------------------------------------------


def _k2(encoder: Foreign, transducer: bool, settings: AdoptSettings) -> Kind:
    name = encoder.metadata.get("model_type", "zipformer2")
    if name not in K2:
        raise AdoptionError(f"{encoder.path.name} is of the type {name!r}, {listed(list(K2))} are known")
    window, shift = _number(encoder, "T"), _number(encoder, "decode_chunk_len")
    changes: dict[str, Any] = {"input": _rows("x", 1, window, shift)}
    lone = next((port for port in encoder.inputs if port.name == "processed_lens"), None)
    if lone is not None and not any(port.name.endswith("processed_lens") for port in encoder.outputs):
        # the host counts the encoder's own steps, as in k2's export
        step = settings.counters.get("processed_lens", shift // SUBSAMPLING)
        changes["counters"] = {"processed_lens": step}
        return Kind(
            name, encoder, _with(settings, **changes), window, shift, KINDS["kaldi"],
            lambda call: {"processed_lens": np.full([1] * len(lone.dims), call * step, np.int64)},
        )  # fmt: skip
    what = name if transducer else f"{name} with CTC"
    return Kind(what, encoder, _with(settings, **changes), window, shift, KINDS["kaldi"])


def _nemo(encoder: Foreign, transducer: bool, settings: AdoptSettings) -> Kind:
    if transducer:
        raise AdoptionError(f"{encoder.path.name} is the encoder of a NeMo transducer: only NeMo's CTC is supported")
    metadata = encoder.metadata
    if (normalised := metadata.get("normalize_type", "")) not in ("", "NA", "None"):
        raise AdoptionError(
            f"{encoder.path.name} takes features that are normalised {normalised}, over the whole recording: it is not "
            "a streaming model"
        )
    dims = {}
    for name in ("cache_last_channel", "cache_last_time"):
        port = next(port for port in encoder.inputs if port.name == name)
        for axis, size in enumerate(port.dims[1:], 1):
            if isinstance(size, str) and f"{name}_dim{axis}" in metadata:
                dims[size] = _number(encoder, f"{name}_dim{axis}")
    window, shift = _number(encoder, "window_size"), _number(encoder, "chunk_shift")
    changes: dict[str, Any] = {"input": _rows("audio_signal", 2, window, shift), "dims": dims}
    return Kind(
        "NeMo CTC", encoder, _with(settings, **changes), window, shift, KINDS["nemo"], last_is_blank=True
    )  # fmt: skip


def _t_one(encoder: Foreign, settings: AdoptSettings) -> Kind:
    """T-one takes sound; ``window`` and ``shift`` are in samples."""
    rate = _number(encoder, "sample_rate", 8000)
    chunk = rate * _number(encoder, "frame_length_ms", 300) // 1000
    dims = {}
    if "state_dim" in encoder.metadata:
        state = next(port for port in encoder.inputs if port.name == "state")
        dims = {size: _number(encoder, "state_dim") for size in state.dims[1:] if isinstance(size, str)}
    source = {"name": "signal", "batch": 0, "time": 1, "sample_rate": rate, "chunk": chunk}
    return Kind("T-one", encoder, _with(settings, input=source, dims=dims), chunk, chunk, None)


def _wenet(encoder: Foreign, settings: AdoptSettings) -> Kind:
    """WeNet has a batch of 1. The host gives the position of a call in the stream, and a mask of the cached keys that
    are valid already."""
    chunk, left = _number(encoder, "chunk_size", 16), _number(encoder, "left_chunks", 4)
    factor, right = _number(encoder, "subsampling_factor"), _number(encoder, "right_context")
    required = chunk * left

    def given(call: int) -> Feeds:
        mask = np.ones((1, 1, required + chunk), np.bool_)
        mask[:, :, : max(0, required - call * chunk)] = False
        feeds = {
            "offset": np.array([required + call * chunk]),
            "required_cache_size": np.array([required]),
            "attn_mask": mask,
        }
        return {name: array for name, array in feeds.items() if any(p.name == name for p in encoder.inputs)}

    window, shift = (chunk - 1) * factor + right + 1, chunk * factor
    changes: dict[str, Any] = {
        "input": _rows("x", 1, window, shift),
        "constants": {"required_cache_size": required},
        "counters": {"offset": chunk},
        "start": {"offset": required},
    }
    pairs = {"attn_cache": "next_att_cache", "conv_cache": "next_conv_cache"}
    outputs = {port.name for port in encoder.outputs}
    changes["state"] = {before: behind for before, behind in pairs.items() if behind in outputs}
    graph = _mask_inside(encoder, chunk, left)
    return Kind(
        "WeNet CTC", graph, _with(settings, **changes), window, shift, KINDS["wenet"], given, single=True
    )  # fmt: skip


def _mask_inside(encoder: Foreign, chunk: int, left: int) -> Foreign:
    """The encoder with its attention mask computed in the graph from ``offset``, as ``given`` computes it."""
    model = encoder.model()
    graph, ops = model.graph, Ops()
    inputs = {str(value.name): value for value in graph.inputs}
    mask, offset = inputs["attn_mask"], inputs["offset"]
    required = chunk * left
    calls = ops("Sub", ops("Div", offset, ops.constant([chunk])), ops.constant([left]))
    empty = ops("Sub", ops.constant([required]), ops("Mul", calls, ops.constant([chunk])))
    seen = ops("Not", ops("Less", ops.constant(np.arange(required + chunk)), empty))
    value = ops.reshape(seen, [1] * (len(mask.shape or [1, 1, 1]) - 1) + [required + chunk])
    graph.inputs.remove(mask)
    mask.replace_all_uses_with(value)
    for constant in ops.initial:
        graph.initializers.add(constant)
    graph.insert_before(graph.node(0), ops.nodes)
    data = ir.to_proto(model).SerializeToString()
    inside = tuple(port for port in encoder.inputs if port.name != "attn_mask")
    return Foreign(encoder.path, data, inside, encoder.outputs, encoder.metadata, encoder.opset)


def _rows(name: str, time: int, window: int, shift: int) -> dict[str, Any]:
    return {"name": name, "batch": 0, "time": time, "chunk": shift, "overlap": window - shift}


# -- metadata and settings ---------------------------------------------------------------------------------------------


def _number(encoder: Foreign, name: str, default: int | None = None) -> int:
    """A number in the metadata. Raises :class:`AdoptionError` if it is missing without a default, or not a number."""
    text = encoder.metadata.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.strip().isdecimal():
        has = "does not have" if text is None else f"has {text!r} for"
        raise AdoptionError(
            f"{encoder.path.name} {has} {name} in its metadata, where its family has a number: was it exported for "
            "sherpa-onnx?"
        )
    return int(text)


def _with(settings: AdoptSettings, **changes: Any) -> AdoptSettings:
    """The changes from metadata, overridden by the user's settings."""
    given = settings.model_dump(exclude_unset=True)
    merged = {name: {**change, **given.get(name, {})} for name, change in changes.items()}
    return AdoptSettings.model_validate({**given, **merged}, strict=False)
