"""Exports PyTorch to one judged ONNX file with its manifest: ``export(module, example, states, "net.onnx")``.

``streamer export`` does the same from the command line. ``python -m export CHECKPOINT`` exports a checkpoint of
``models``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from export.build import RefusedError
    from export.forward import ExportError
    from export.module import export

__all__ = ["ExportError", "RefusedError", "export"]


def __getattr__(name: str) -> Any:
    """Import on first use, since PyTorch takes seconds to import."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from export import module
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] in ("torch", "onnx", "onnx_ir", "onnxscript"):
            raise ModuleNotFoundError(
                f"export needs {error.name}: pip install torch 'streamer[export]'", name=error.name
            ) from error
        raise
    return getattr(module, name)
