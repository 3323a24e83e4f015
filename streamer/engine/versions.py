"""Decides whether a model file that changed while it was served may replace the previous version."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamer.engine.model import Model, ModelError
from streamer.engine.proof import judge_file

if TYPE_CHECKING:
    from streamer.metrics import Metrics

__all__ = ["check_promises", "reload_file"]

log = logging.getLogger(__name__)

#: Chunks of the endurance run for a new file: few, since streams are being served meanwhile.
LONG_CHUNKS = 40


def check_promises(path: Path) -> None:
    """Raises :class:`ModelError` for a file that breaks a law."""
    verdict = judge_file(path, long_chunks=LONG_CHUNKS)
    if not verdict.ok:
        broken = "; ".join(
            f"{finding.law}, {finding.check} {finding.detail}".strip() for finding in verdict.refusals[:3]
        )
        raise ModelError(f"{path} does not keep its promises: {broken} (streamer check says more)")


def reload_file(model: Model, metrics: Metrics, take: Callable[[Path], Model]) -> dict[str, Any]:
    """The outcome of a reload of a serving ``model``'s file, JSON-ready: ``outcome`` (``unchanged``, ``reloaded`` or
    ``failed`` with ``error``) and ``digest``. ``take`` is called if the file has changed: it makes the new version
    serve and returns it, or raises :class:`ModelError`."""
    name, path, digest = model.manifest.name, model.path, model.digest
    try:
        if hashlib.sha256(path.read_bytes()).hexdigest() == digest:
            return {"outcome": "unchanged", "digest": digest}
        new = take(path)
    except (ModelError, OSError) as error:
        metrics.reloads.labels(name, "failed").inc()
        log.error("a new version is not taken, the old one serves on", extra={"model": name, "error": str(error)})
        return {"outcome": "failed", "digest": digest, "error": str(error)}
    metrics.reloads.labels(name, "reloaded").inc()
    version = new.manifest.version
    log.warning("a new version serves", extra={"model": name, "version": version, "digest": new.digest[:12]})
    return {"outcome": "reloaded", "digest": new.digest, "version": version}
