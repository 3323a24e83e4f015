"""What ``streamer top`` knows of a daemon at one moment, read from its pages, and its rates since the last one."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from streamer.refusals import REFUSED, refused

if TYPE_CHECKING:
    from streamer.serve.moving.peer import Peer

__all__ = ["DaemonLook", "ModelLook", "look_at"]

Sample = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True)
class ModelLook:
    """One model. Rates are per second since the look before (``None`` at the first), ``lag`` is the 95th percentile of
    the chunks since then, of all chunks at the first look; seconds."""

    active: int
    detached: int
    rows: float | None
    lag: float | None
    oldest: float
    load: float
    batch: float | None


@dataclass(frozen=True, slots=True)
class DaemonLook:
    """``at``: monotonic seconds. ``ready``: what its readiness page says. ``sessions``: the facts of single streams,
    ``None`` where the token may not see them, ``unseen`` then says why; ``more``: there are more than these."""

    at: float
    version: str
    ready: str
    trouble: bool
    samples: Mapping[Sample, float]
    sessions: list[dict[str, Any]] | None
    unseen: str
    more: bool
    models: dict[str, ModelLook] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)

    def value(self, name: str, **labels: str) -> float:
        """A sample of the metrics page; 0 if it is not there."""
        return self.samples.get((name, tuple(sorted(labels.items()))), 0.0)

    def by(self, name: str, label: str) -> dict[str, float]:
        """All samples of one metric, by the value of one label, summed over the others."""
        found: dict[str, float] = defaultdict(float)
        for (sample, labels), value in self.samples.items():
            if sample == name:
                found[dict(labels).get(label, "")] += value
        return dict(found)

    def refused(self) -> dict[str, int]:
        """Everything that was not taken since the daemon's start, by reason; only reasons that came up."""
        samples = (
            (name, reason, count)
            for name in REFUSED
            for reason, count in self.by(f"streamer_{name}_total", "reason").items()
        )
        return {f"{name} {reason}": count for (name, reason), count in refused(samples).items()}

    def to_dict(self, url: str) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "url": url,
            "version": self.version,
            "ready": not self.trouble,
            "says": self.ready,
            "models": {
                name: {each: getattr(model, each) for each in ModelLook.__slots__}
                for name, model in self.models.items()
            },
            "sensors": self.sensors(),
            "refused": self.refused(),
            "connections": int(self.value("streamer_connections")),
            "received_bytes_per_second": self.rates.get("streamer_received_bytes_total"),
            "sessions": self.sessions,
            "more_sessions": self.more,
        }

    def sensors(self) -> dict[str, Any]:
        return {
            "known": int(self.value("streamer_sensors")),
            "readings_per_second": self.rates.get("streamer_readings_total"),
            "waiting": int(self.value("streamer_waiting_readings")),
            "oldest_seconds": self.value("streamer_oldest_reading_seconds"),
            "unsaved": int(self.value("streamer_unsaved_sensors")),
        }


def look_at(peer: Peer, at: float, before: DaemonLook | None) -> DaemonLook:
    """Ask the daemon. ``at``: monotonic seconds, now. Raises :class:`~streamer.serve.moving.peer.PeerError`."""
    from streamer.serve.moving.peer import PeerError

    samples = _samples(peer.ask("GET", "/metrics").decode(errors="replace"))
    trouble = False
    try:
        ready = peer.ask("GET", "/readyz").decode(errors="replace").strip()
    except PeerError as error:
        if error.status != 503:
            raise
        ready, trouble = error.reason, True
    sessions, unseen, more = None, "", False
    try:
        page = json.loads(peer.ask("GET", "/v1/sessions"))
        sessions, more = page["sessions"], "after" in page
    except PeerError as error:
        if error.status not in (401, 403, 503):
            raise
        unseen = error.reason
    version = next((dict(labels).get("version", "") for name, labels in samples if name == "streamer_build_info"), "")
    found = DaemonLook(at, version, ready, trouble, samples, sessions, unseen, more)
    found.rates.update(_rates(found, before))
    for name in sorted(found.by("streamer_capacity", "model")):
        found.models[name] = _model(found, before, name)
    return found


def _samples(page: str) -> dict[Sample, float]:
    from prometheus_client.parser import text_string_to_metric_families

    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def _rates(now: DaemonLook, before: DaemonLook | None) -> dict[str, float]:
    """Rates of counters, summed over their labels. A restarted daemon counts from zero."""
    if before is None or now.at <= before.at:
        return {}
    found = {}
    for name in ("streamer_readings_total", "streamer_received_bytes_total"):
        more = sum(now.by(name, "").values()) - sum(before.by(name, "").values())
        found[name] = max(0.0, more) / (now.at - before.at)
    return found


def _model(now: DaemonLook, before: DaemonLook | None, name: str) -> ModelLook:
    def more(metric: str) -> float:
        past = 0.0 if before is None else before.value(metric, model=name)
        return max(0.0, now.value(metric, model=name) - past)

    batches, streams = more("streamer_batch_size_count"), more("streamer_batch_size_sum")
    return ModelLook(
        active=int(now.value("streamer_sessions", model=name, state="active")),
        detached=int(now.value("streamer_sessions", model=name, state="detached")),
        rows=None if before is None or now.at <= before.at else more("streamer_rows_total") / (now.at - before.at),
        lag=_percentile(now, before, name, 0.95),
        oldest=now.value("streamer_lag_max_seconds", model=name),
        load=now.value("streamer_load", model=name),
        batch=streams / batches if batches else None,
    )


def _percentile(now: DaemonLook, before: DaemonLook | None, model: str, share: float) -> float | None:
    """The upper edge of the bucket of lags that holds it; ``None`` where no chunk came back."""
    counts: dict[float, float] = {}
    for (name, labels), value in now.samples.items():
        by_label = dict(labels)
        if name == "streamer_lag_seconds_bucket" and by_label.get("model") == model:
            past = 0.0 if before is None else before.samples.get((name, labels), 0.0)
            counts[float(by_label["le"])] = max(0.0, value - past)
    total = counts.get(math.inf, 0.0)
    if not total:
        return None
    return next((edge for edge in sorted(counts) if counts[edge] >= share * total and edge < math.inf), None) or max(
        (edge for edge in counts if edge < math.inf), default=None
    )
