"""Reads a foreign file into a graph, or refuses it with the reason. Only operators of the daemon's runtime are
allowed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
import onnxruntime
from google.protobuf.message import DecodeError
from onnx_ir.passes.common import InlinePass, LiftConstantsToInitializersPass, RemoveInitializersFromInputsPass

from export.adopt.report import AdoptionError, listed
from export.adopt.roles import Port
from streamer.contract.manifest import KEY

__all__ = ["Foreign", "read"]

#: Domains of the runtime's own operators; others need a library that the daemon does not have.
DOMAINS = {"", "ai.onnx", "com.microsoft", "ai.onnx.ml"}
#: Lower opsets have attributes instead of inputs in some operators that are added around the graph.
OLDEST_OPSET = 11
DTYPES = {"BOOL", "INT8", "UINT8", "INT16", "INT32", "INT64", "FLOAT16", "FLOAT", "DOUBLE"}


@dataclass
class Foreign:
    """A foreign file. ``data``: its bytes, weights included, for the runtime. ``metadata``: its metadata properties."""

    path: Path
    data: bytes
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    metadata: dict[str, str]
    opset: int

    @property
    def digest(self) -> str:
        """SHA-256 of the bytes, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()

    def model(self) -> ir.Model:
        """A new copy of the graph, with functions inlined and constants as initialisers."""
        model = ir.from_proto(onnx.load_from_string(self.data))
        for change in (InlinePass(), LiftConstantsToInitializersPass(), RemoveInitializersFromInputsPass()):
            change(model)
        return model

    def session(self) -> onnxruntime.InferenceSession:
        return session(self.data)


def session(data: bytes) -> onnxruntime.InferenceSession:
    """A session with one thread and without log output. Raises the runtime's errors."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def read(path: Path, opset: int = OLDEST_OPSET) -> Foreign:
    """Read a file. ``opset``: the minimum, to which older files are converted. Raises :class:`AdoptionError`."""
    proto = _load(path)
    if KEY in {entry.key for entry in proto.metadata_props}:
        raise AdoptionError(f"{path} has a manifest already: streamer check {path} judges it")
    if unknown := sorted({domain or "?" for domain in _domains(proto)}):
        raise AdoptionError(
            f"{path} has operators of {listed(unknown)}, which this runtime does not support: export it with plain "
            "ONNX operators"
        )
    proto = _converted(proto, path, opset)
    if not all(value.type.tensor_type.HasField("shape") for value in proto.graph.output):
        proto = onnx.shape_inference.infer_shapes(proto)
    try:
        data = proto.SerializeToString()
    except ValueError as error:
        raise AdoptionError(f"{path} is larger than 2 GiB, the limit of one file: quantise it first") from error
    try:
        session(data)
    except Exception as error:  # the runtime raises many types
        raise AdoptionError(f"{path} can't be run by this runtime: {' '.join(str(error).split())[:300]}") from error
    initial = {tensor.name for tensor in proto.graph.initializer}
    inputs = tuple(_port(value, path) for value in proto.graph.input if value.name not in initial)
    outputs = tuple(_port(value, path) for value in proto.graph.output)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    return Foreign(path, data, inputs, outputs, metadata, _opset(proto))


def _load(path: Path) -> onnx.ModelProto:
    try:
        proto = onnx.load(str(path), format="protobuf", load_external_data=False)
    except (DecodeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise AdoptionError(f"{path} is not an ONNX file ({reason}): export the model to ONNX first") from error
    except OSError as error:
        raise AdoptionError(f"can't read {error.filename or path}: {error.strerror or error}") from error
    if not proto.graph.node or not proto.graph.output:
        raise AdoptionError(f"{path} is not an ONNX file (it has no graph): export the model to ONNX first")
    _need_weights(proto, path)
    try:
        onnx.load_external_data_for_model(proto, str(path.parent))
    except (onnx.checker.ValidationError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise AdoptionError(
            f"the weights of {path} can't be read from the files beside it ({reason}): export the model with "
            "external_data=False"
        ) from error
    return proto


def _need_weights(proto: onnx.ModelProto, path: Path) -> None:
    """Raises :class:`AdoptionError` that names files of external weights that are missing or too short."""
    needed: dict[str, int] = {}
    for tensor in _tensors(proto.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            said = {entry.key: entry.value for entry in tensor.external_data}
            begin, length = (int(said.get(key, 0) or 0) for key in ("offset", "length"))
            place = said.get("location", "")
            needed[place] = max(needed.get(place, 0), begin + length)
    if missing := sorted(place for place in needed if not (path.parent / place).is_file()):
        raise AdoptionError(
            f"the weights of {path} are in {listed(missing)}, which is not beside it: copy it into {path.parent}, or "
            "export the model with external_data=False"
        )
    for place, size in sorted(needed.items()):
        if (there := (path.parent / place).stat().st_size) < size:
            raise AdoptionError(
                f"the weights of {path} are in {place}, which is too short: it has {there} bytes, and the model needs "
                f"{size}. Copy it again, whole, or export the model with external_data=False"
            )


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All tensors with weights, those of constants and of inner graphs, too."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _domains(proto: onnx.ModelProto) -> Iterator[str]:
    """Domains of operators that neither the runtime nor the file's own functions define."""
    own = {(function.domain, function.name) for function in proto.functions}

    def walk(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
        for node in nodes:
            if node.domain not in DOMAINS and (node.domain, node.op_type) not in own:
                yield node.domain
            for attribute in node.attribute:
                yield from walk(attribute.g.node)
                for graph in attribute.graphs:
                    yield from walk(graph.node)

    yield from walk(proto.graph.node)
    for function in proto.functions:
        yield from walk(function.node)


def _opset(proto: onnx.ModelProto) -> int:
    return max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def _converted(proto: onnx.ModelProto, path: Path, opset: int) -> onnx.ModelProto:
    """The model with at least this opset. Raises :class:`AdoptionError` if it can't be converted."""
    if _opset(proto) >= opset:
        return proto
    try:
        return onnx.version_converter.convert_version(proto, opset)
    except Exception as error:  # the converter raises many types
        raise AdoptionError(
            f"{path} is of opset {_opset(proto)} and can't be converted to {opset} "
            f"({' '.join(str(error).split())[:200]}): export it again with opset {max(opset, 17)}"
        ) from error


def _port(value: onnx.ValueInfoProto, path: Path) -> Port:
    tensor = value.type.tensor_type
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
    if not value.type.HasField("tensor_type") or kind not in DTYPES:
        raise AdoptionError(
            f"{path}: {value.name} is {kind.lower() if tensor.elem_type else 'not a tensor'}: tensors of numbers only"
        )
    if not tensor.HasField("shape"):
        raise AdoptionError(
            f"{path}: {value.name} has no declared rank: export the model with the shapes of its inputs"
        )
    dims = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in tensor.shape.dim)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return Port(value.name, dtype, dims)
