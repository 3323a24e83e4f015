"""A loaded model file: shared weights, no streams. The only module that imports onnxruntime.

Tensors are bound by name. The manifest is checked against the graph once, at load, so that an inconsistent file is
refused with the tensors named instead of failing in the middle of a stream.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from streamer.contract.manifest import MAX_MODEL_BYTES, Manifest, ManifestError
from streamer.contract.signature import PublicKey, SignatureError, signature_of, verify

__all__ = ["Model", "ModelError"]

_DTYPES = {
    "tensor(bool)": "bool",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
}


class ModelError(ValueError):
    """A file that can't be served: missing, corrupt, without a manifest, or inconsistent with it. Says what to do."""


class Model:
    """One file. ``digest`` is the SHA-256 of its bytes and part of every snapshot, since states fit only this file."""

    def __init__(self, session: Any, manifest: Manifest, path: Path, digest: str) -> None:
        self.manifest = manifest
        self.path = path
        self.digest = digest
        self._session = session
        self._outputs = [*(o.name for o in manifest.outputs), *(s.out for s in manifest.states)]

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        threads: int = 1,
        max_bytes: int = MAX_MODEL_BYTES,
        keys: Sequence[PublicKey] = (),
    ) -> Model:
        """Load and check a file. ``threads``: intra-op threads of one ``run``. ``max_bytes``: of the file, of what it
        unpacks to, and of a chunk of it, all together. ``keys``: one of them must have signed the file; none: no
        signature is needed. Raises :class:`ModelError`."""
        path = Path(path)
        data = _read(path, max_bytes)
        if keys:
            try:
                verify(data, signature_of(path), keys)
            except SignatureError as error:
                raise ModelError(f"{path}: {error}") from error
        try:
            # in a thread of its own: the runtime sets flush-to-zero on whichever thread makes the first session
            with ThreadPoolExecutor(1) as maker:
                session = maker.submit(_session, data, threads).result()
        except Exception as error:  # the runtime raises a dozen types of errors, all of them for an unusable file
            if "external" in str(error).lower():
                raise ModelError(
                    f"{path} keeps its weights in a second file (PyTorch's exporter calls it {path.name}.data), and a "
                    f"model here is one file: streamer adopt {path} makes one of both"
                ) from error
            raise ModelError(
                f"{path} is no ONNX file that this runtime can load ({_line(error)}): export it again"
            ) from error
        try:
            manifest = Manifest.from_metadata(session.get_modelmeta().custom_metadata_map)
        except ManifestError as error:
            raise ModelError(f"{path}: {error}") from error
        parts = {"the file": len(data), "what it unpacks to": manifest.packed_bytes, "a chunk": manifest.chunk_bytes}
        if sum(parts.values()) > max_bytes:
            said = ", ".join(f"{what} {count}" for what, count in parts.items())
            raise ModelError(
                f"{path} takes {sum(parts.values())} bytes ({said}), {max_bytes} are allowed: allow more with the "
                "setting max_model_bytes if you know where it comes from"
            )
        problems = _disagreements(session, manifest)
        if problems:
            listed = "\n".join(f"  {problem}" for problem in problems)
            raise ModelError(f"{path}: manifest and graph disagree, export it again:\n{listed}")
        return cls(session, manifest, path, hashlib.sha256(data).hexdigest())

    def run(self, feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """One chunk for every row of the batch (axis 0). Outputs and new states, keyed by the graph's output names.

        Thread-safe, releases the GIL, allocates its results. Any exception of the runtime passes through.
        """
        return dict(zip(self._outputs, self._session.run(self._outputs, feeds), strict=True))

    def zero_state(self, batch: int) -> dict[str, NDArray[Any]]:
        """The initial states of ``batch`` streams, keyed by the states' input names."""
        return {s.in_: np.zeros((batch, *s.shape), s.dtype) for s in self.manifest.states}

    def zero_feeds(self, batch: int) -> dict[str, NDArray[Any]]:
        """Every input that :meth:`run` takes: a chunk of zeros for ``batch`` new streams without conditions."""
        chunk = {i.name: np.zeros((batch, *i.chunk_shape), i.dtype) for i in self.manifest.inputs}
        conditions = {c.name: np.zeros((batch, *c.shape), c.dtype) for c in self.manifest.conditions}
        return {**chunk, **conditions, **self.zero_state(batch)}


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ModelError(f"can't read the model {path}: it is no file")
            if found.st_size > max_bytes:
                raise ModelError(
                    f"{path} has {found.st_size} bytes, {max_bytes} are allowed: allow more with the setting "
                    "max_model_bytes if you know where it comes from"
                )
            return file.read(max_bytes + 1)
    except OSError as error:
        raise ModelError(f"can't read the model {path}: {error.strerror or error}") from error


def _session(data: bytes, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # errors are raised, and logged where they are caught
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _disagreements(session: Any, manifest: Manifest) -> list[str]:
    inputs = {i.name: (i.dtype, i.chunk_shape) for i in manifest.inputs}
    inputs |= {c.name: (c.dtype, c.shape) for c in manifest.conditions}
    inputs |= {s.in_: (s.dtype, s.shape) for s in manifest.states}
    outputs = {o.name: (o.dtype, o.shape) for o in manifest.outputs}
    outputs |= {s.out: (s.dtype, s.shape) for s in manifest.states}
    problems = []
    for kind, declared, actual in (("input", inputs, session.get_inputs()), ("output", outputs, session.get_outputs())):
        graph = {node.name: node for node in actual}
        problems += [f"{kind} {name!r} is not in the graph" for name in declared if name not in graph]
        problems += [f"{kind} {name!r} of the graph is not in the manifest" for name in graph if name not in declared]
        for name in declared.keys() & graph.keys():
            dtype, shape = declared[name]
            if _DTYPES.get(graph[name].type) != dtype:
                problems.append(f"{kind} {name!r} is {graph[name].type} in the graph, {dtype} in the manifest")
            batch, *rest = graph[name].shape or [None]
            if isinstance(batch, int) and (batch, manifest.max_batch) != (1, 1):
                problems.append(f"{kind} {name!r} has the fixed batch {batch} on axis 0, it must be free")
            if len(rest) != len(shape) or any(isinstance(r, int) and r != s for r, s in zip(rest, shape, strict=True)):
                problems.append(f"{kind} {name!r} has the shape {rest} in the graph, {list(shape)} in the manifest")
    return problems


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
