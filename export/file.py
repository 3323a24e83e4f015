"""Writes a model file: first a draft, which replaces the target only after the judge has passed it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir

from streamer.contract.manifest import KEY, Manifest

__all__ = ["draft_folder", "draft_of", "write"]


def draft_folder(target: Path) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder beside ``target``. Its name holds the number of this process, so that the command that started
    it can remove the folder if the process crashes (:mod:`streamer.commands.tools`)."""
    return tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.{os.getpid()}.")


@contextmanager
def draft_of(target: Path) -> Iterator[Path]:
    """The path of a draft of ``target``, in a temporary folder beside it. After the block the draft replaces ``target``
    by a rename, so readers see the old file or a judged one. If the block raises, ``target`` stays unchanged."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with draft_folder(target) as folder:
        draft = Path(folder) / target.name
        yield draft
        os.replace(draft, target)


def write(path: Path, model: ir.Model, manifest: Manifest) -> None:
    """Write graph, weights and manifest as one file, which is on the disk when this returns."""
    model.metadata_props[KEY] = manifest.to_json()
    model.producer_name, model.producer_version = "streamer", "1"
    data: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
