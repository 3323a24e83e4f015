"""What the metrics' own histogram says is what the library's would."""

from __future__ import annotations

import numpy as np
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from streamer.metrics import LAG, Durations, Metrics


def test_many_durations_at_once_count_as_the_librarys_histogram_counts_each() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    name, text = "streamer_lag_seconds", "how late"
    durations, histogram = Durations(name, text, LAG), Histogram(name, text, ("model",), buckets=LAG, registry=theirs)
    ours.register(durations)
    rng = np.random.default_rng(0)
    for model in ("a", "b"):
        durations.add(model, ())  # on the page from the start
        histogram.labels(model)
        for _ in range(5):
            seconds = [*rng.exponential(0.3, 7).tolist(), *LAG, 0.0, 1e9]
            durations.add(model, seconds)
            for value in seconds:
                histogram.labels(model).observe(value)

    def page(registry: CollectorRegistry) -> list[str]:  # the library's also says when it began
        return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]

    assert page(ours) == page(theirs)
    assert f'{name}_count{{model="b"}} {5.0 * (7 + len(LAG) + 2)}' in page(ours)


def test_chunks_are_counted_with_their_batch() -> None:
    table = Metrics(CollectorRegistry())
    model = table.model("toy")

    def value(name: str) -> float | None:
        return table.registry.get_sample_value(f"streamer_{name}", {"model": "toy"})

    assert (value("rows_total"), value("lag_seconds_count"), value("chunks_total")) == (0, 0, 0)
    for turn in (1, 2):
        model.chunk(80, 0.25)
        model.chunk(40, None)  # nobody knows when it came
        model.batch(2, 3, 0.1, 0.1, 0.2, 0.1, 0)
        assert (value("rows_total"), value("lag_seconds_count"), value("chunks_total")) == (120 * turn, turn, 2 * turn)
        assert value("lag_seconds_sum") == 0.25 * turn


def test_a_failed_reload_is_an_increase_from_the_first_one_on() -> None:
    """What an alert asks the increase() of has to be on the page before it counts."""
    metrics = Metrics()
    metrics.model("toy")
    found = metrics.registry.get_sample_value("streamer_model_reloads_total", {"model": "toy", "outcome": "failed"})
    assert found == 0
