"""Writes a model file: to a draft first, which is moved to its place only after the judge has passed it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir

from streamer.contract.manifest import KEY, Manifest

__all__ = ["draft_of", "write"]


@contextmanager
def draft_of(target: Path) -> Iterator[Path]:
    """A draft of ``target`` in a folder beside it, so that the last step is a rename: readers see the old file or a
    judged one. The file that the block writes there replaces ``target``, unless the block raises."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        draft = Path(folder) / target.name
        yield draft
        os.replace(draft, target)


def write(path: Path, model: ir.Model, manifest: Manifest) -> None:
    """One file: graph, weights and manifest, on the disk when this returns."""
    model.metadata_props[KEY] = manifest.to_json()
    model.producer_name, model.producer_version = "streamer", "1"
    data: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
