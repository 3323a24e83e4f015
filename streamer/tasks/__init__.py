"""Tasks turn rows of a model's output into events."""

from __future__ import annotations

from streamer.contract.manifest import MAX_MODEL_BYTES, Manifest
from streamer.tasks.base import Event, Forecast, Task, TaskError, Transcription, Word

__all__ = ["Event", "Forecast", "Task", "TaskError", "Transcription", "Word", "create"]


def create(manifest: Manifest, max_bytes: int = MAX_MODEL_BYTES) -> Task:
    """Create the task that ``manifest.task`` names; its tables may take ``max_bytes``. Raises :class:`TaskError` if
    this build lacks the task, or if the options are invalid in any way."""
    try:
        return _create(manifest, max_bytes)
    except TaskError:
        raise
    except Exception as error:  # options are untrusted JSON, and a task reads them in many places
        reason = f"{type(error).__name__}: {str(error)[:300]}"
        raise TaskError(
            f"model {manifest.name!r}: its options can't be used ({reason}): export the model again"
        ) from error


def _create(manifest: Manifest, max_bytes: int) -> Task:
    if manifest.task == "transcribe":
        from streamer.tasks.transcribe.task import Transcribe

        return Transcribe(manifest, max_bytes)
    if manifest.task == "forecast":
        from streamer.tasks.forecast import Forecaster

        return Forecaster(manifest)
    if manifest.task == "generate":
        from streamer.tasks.generate import Generate

        return Generate(manifest)
    if manifest.task == "classify":
        from streamer.tasks.classify import Classify

        return Classify(manifest)
    if manifest.task == "rewrite":
        if "marks" in manifest.options:
            from streamer.tasks.marks import Marks

            return Marks(manifest)
        from streamer.tasks.rewrite import Rewrite

        return Rewrite(manifest)
    if manifest.task == "enhance":
        from streamer.tasks.enhance import Enhance

        return Enhance(manifest)
    if manifest.task == "raw":
        from streamer.tasks.raw import Raw

        return Raw(manifest)
    raise TaskError(
        f"model {manifest.name!r} is for the task {manifest.task!r}, which this build does not have; it has "
        "transcribe, forecast, generate, classify, enhance, rewrite and raw"
    )
