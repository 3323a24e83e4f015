"""KServe v2's metadata of the server and of a model, as JSON-ready documents; gRPC's messages have the same names."""

from __future__ import annotations

from typing import Any

from streamer import __version__
from streamer.contract.manifest import Manifest
from streamer.serve.kserve.tensors import datatype_of

__all__ = ["CONFIG_TYPES", "EXTENSIONS", "PLATFORM", "config", "metadata", "server"]

EXTENSIONS = (
    "sequence",
    "sequence(string_id)",
    "model_repository",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
)
PLATFORM = "onnxruntime_onnx"
#: Numbers of the datatypes in Triton's model_config.proto.
CONFIG_TYPES = {
    "TYPE_BOOL": 1,
    "TYPE_UINT8": 2,
    "TYPE_INT8": 6,
    "TYPE_INT16": 7,
    "TYPE_INT32": 8,
    "TYPE_INT64": 9,
    "TYPE_FP16": 10,
    "TYPE_FP32": 11,
    "TYPE_FP64": 12,
}


def server() -> dict[str, Any]:
    return {"name": "streamer", "version": __version__, "extensions": list(EXTENSIONS)}


def metadata(manifest: Manifest) -> dict[str, Any]:
    """A model's metadata. Shapes are those of one chunk, with -1 for the batch."""
    return {
        "name": manifest.name,
        "versions": [manifest.version],
        "platform": PLATFORM,
        "inputs": [_tensor(name, dtype, shape) for name, dtype, shape, _ in _inputs(manifest)],
        "outputs": [_tensor(output.name, output.dtype, output.shape) for output in manifest.outputs],
    }


def config(manifest: Manifest, capacity: int, idle_seconds: float) -> dict[str, Any]:
    """A model's configuration as in Triton's ``config.pbtxt``. Every state starts at zero."""
    return {
        "name": manifest.name,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "max_batch_size": 1,
        "input": [
            {"name": name, "data_type": f"TYPE_{datatype_of(dtype)}", "dims": list(shape)}
            | ({"optional": True} if optional else {})
            for name, dtype, shape, optional in _inputs(manifest)
        ],
        "output": [
            {"name": output.name, "data_type": f"TYPE_{datatype_of(output.dtype)}", "dims": list(output.shape)}
            for output in manifest.outputs
        ],
        "sequence_batching": {
            "max_sequence_idle_microseconds": round(idle_seconds * 1e6),
            "oldest": {"max_candidate_sequences": capacity, "preserve_ordering": True},
            "state": [
                {
                    "input_name": state.in_,
                    "output_name": state.out,
                    "data_type": f"TYPE_{datatype_of(state.dtype)}",
                    "dims": list(state.shape),
                }
                for state in manifest.states
            ],
        },
    }


def _inputs(manifest: Manifest) -> list[tuple[str, str, tuple[int, ...], bool]]:
    """Each input's name, dtype, shape, and whether it is optional."""
    return [
        *((given.name, given.dtype, given.chunk_shape, False) for given in manifest.inputs),
        *((given.name, given.dtype, given.shape, True) for given in manifest.conditions),
    ]


def _tensor(name: str, dtype: str, shape: tuple[int, ...]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype_of(dtype), "shape": [-1, *shape]}
