"""The messages of ``inference.GRPCInferenceService``, as far as this daemon reads and writes them, by their numbers.

Made from a table in a separate descriptor pool, so that they do not collide with those of a client in the same process.
Text is declared as bytes, so that invalid UTF-8 gets an error response instead of a closed stream. A map is a list of
pairs on the wire.
"""

from __future__ import annotations

from typing import Any

from streamer.serve.proto import messages

__all__ = ["MESSAGES"]

_NAMED = {"name": (1, "bytes"), "version": (2, "bytes")}
_TENSOR = {"name": (1, "bytes"), "datatype": (2, "bytes"), "shape": (3, "int64*")}

MESSAGES: dict[str, Any] = messages(
    "streamer_kserve.proto",
    {
        "Parameter": {
            "bool_param": (1, "bool"),
            "int64_param": (2, "int64"),
            "string_param": (3, "bytes"),
            "double_param": (4, "double"),
            "uint64_param": (5, "uint64"),
        },
        "Pair": {"key": (1, "bytes"), "value": (2, "Parameter")},
        "Contents": {
            "bool_contents": (1, "bool*"),
            "int_contents": (2, "int32*"),
            "int64_contents": (3, "int64*"),
            "uint_contents": (4, "uint32*"),
            "uint64_contents": (5, "uint64*"),
            "fp32_contents": (6, "float*"),
            "fp64_contents": (7, "double*"),
        },
        "InputTensor": _TENSOR | {"parameters": (4, "Pair*"), "contents": (5, "Contents")},
        "OutputTensor": _TENSOR | {"parameters": (4, "Pair*")},
        "RequestedOutput": {"name": (1, "bytes"), "parameters": (2, "Pair*")},
        "ModelInferRequest": {
            "model_name": (1, "bytes"),
            "model_version": (2, "bytes"),
            "id": (3, "bytes"),
            "parameters": (4, "Pair*"),
            "inputs": (5, "InputTensor*"),
            "outputs": (6, "RequestedOutput*"),
            "raw_input_contents": (7, "bytes*"),
        },
        "ModelInferResponse": {
            "model_name": (1, "bytes"),
            "model_version": (2, "bytes"),
            "id": (3, "bytes"),
            "parameters": (4, "Pair*"),
            "outputs": (5, "OutputTensor*"),
            "raw_output_contents": (6, "bytes*"),
        },
        "ModelStreamInferResponse": {"error_message": (1, "bytes"), "infer_response": (2, "ModelInferResponse")},
        "Empty": {},
        "Named": _NAMED,
        "ServerLiveResponse": {"live": (1, "bool")},
        "ReadyResponse": {"ready": (1, "bool")},
        "ServerMetadataResponse": _NAMED | {"extensions": (3, "bytes*")},
        "ModelMetadataResponse": {
            "name": (1, "bytes"),
            "versions": (2, "bytes*"),
            "platform": (3, "bytes"),
            "inputs": (4, "OutputTensor*"),
            "outputs": (5, "OutputTensor*"),
        },
        # -- model_config.proto ----------------------------------------------------------------------------------------
        "ConfigInput": {
            "name": (1, "bytes"),
            "data_type": (2, "int32"),
            "dims": (4, "int64*"),
            "optional": (8, "bool"),
        },
        "ConfigOutput": {"name": (1, "bytes"), "data_type": (2, "int32"), "dims": (3, "int64*")},
        "ConfigState": {
            "input_name": (1, "bytes"),
            "output_name": (2, "bytes"),
            "data_type": (3, "int32"),
            "dims": (4, "int64*"),
        },
        "Oldest": {"max_candidate_sequences": (1, "int32"), "preserve_ordering": (4, "bool")},
        "SequenceBatching": {
            "max_sequence_idle_microseconds": (1, "uint64"),
            "oldest": (4, "Oldest"),
            "state": (5, "ConfigState*"),
        },
        "ModelConfig": {
            "name": (1, "bytes"),
            "platform": (2, "bytes"),
            "max_batch_size": (4, "int32"),
            "input": (5, "ConfigInput*"),
            "output": (6, "ConfigOutput*"),
            "sequence_batching": (13, "SequenceBatching"),
            "backend": (17, "bytes"),
        },
        "ModelConfigResponse": {"config": (1, "ModelConfig")},
        # -- statistics ------------------------------------------------------------------------------------------------
        "Duration": {"count": (1, "uint64"), "ns": (2, "uint64")},
        "InferStatistics": {
            "success": (1, "Duration"),
            "fail": (2, "Duration"),
            "queue": (3, "Duration"),
            "compute_input": (4, "Duration"),
            "compute_infer": (5, "Duration"),
            "compute_output": (6, "Duration"),
            "cache_hit": (7, "Duration"),
            "cache_miss": (8, "Duration"),
        },
        "ModelStatistics": {
            "name": (1, "bytes"),
            "version": (2, "bytes"),
            "last_inference": (3, "uint64"),
            "inference_count": (4, "uint64"),
            "execution_count": (5, "uint64"),
            "inference_stats": (6, "InferStatistics"),
        },
        "ModelStatisticsResponse": {"model_stats": (1, "ModelStatistics*")},
        # -- repository ------------------------------------------------------------------------------------------------
        "RepositoryIndexRequest": {"repository_name": (1, "bytes"), "ready": (2, "bool")},
        "ModelIndex": {"name": (1, "bytes"), "version": (2, "bytes"), "state": (3, "bytes"), "reason": (4, "bytes")},
        "RepositoryIndexResponse": {"models": (1, "ModelIndex*")},
    },
)
