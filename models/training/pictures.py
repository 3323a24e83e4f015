"""Draws the pictures of ``docs/ctc.md`` and ``docs/attention.md``: ``python -m models pictures``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamer.engine.catalogue import NUMBERS, resolve
from streamer.engine.model import Model
from streamer.engine.stepper import Stepper
from streamer.tasks.rewrite import END, Rewrite
from streamer.tasks.spoken import known

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SAMPLE = Path(__file__).parents[2] / "samples" / "digits.flac"
RECOGNISER = "bidirectional-digits"
#: Steps of the recording that are drawn, and how many prefixes.
WINDOW, BEAM = (20, 48), 4
PHRASES = ("twenty three point five", "half past nine pm", "minus four hundred and two")
FLOOR = 1e-12

Array = NDArray[np.float64]


def draw(folder: Path) -> list[Path]:
    """Write all pictures to ``folder``; returns their paths. Raises :class:`streamer.engine.model.ModelError` if a
    model is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    model = Model.load(resolve(RECOGNISER))
    tokens, seconds = model.manifest.options["tokens"], model.manifest.chunk_seconds / model.manifest.steps
    probabilities = heard(model)[slice(*WINDOW)]
    labels = collapse(probabilities.argmax(1))
    times = (np.arange(*WINDOW) - model.manifest.latency) * seconds
    figures = {
        "ctc-posterior": posterior(probabilities, tokens, times),
        "ctc-lattice": lattice(probabilities, labels, tokens, times),
        "ctc-beam": beam(probabilities, tokens, times),
        "attention": attention(Model.load(resolve(NUMBERS))),
    }
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        figure.tight_layout()
        figure.savefig(paths[-1], dpi=100)
    return paths


def heard(model: Model) -> Array:
    """The model's probabilities [T, V] for the sample recording."""
    import soundfile

    from streamer.streams.resampler import Resampler

    pcm, rate = soundfile.read(SAMPLE, dtype="int16")
    wanted, chunk = model.manifest.input.sample_rate, model.manifest.chunk
    assert wanted is not None
    resampler = Resampler(rate, wanted)
    pcm = np.concatenate([resampler.push(pcm), resampler.finish()])
    stepper, rows = Stepper(model), []
    for piece in np.split(np.pad(pcm, (0, -len(pcm) % chunk)), -(-len(pcm) // chunk)):
        outputs = stepper.step(piece[None])
        rows.append(np.exp(outputs["log_probs"][0].astype(np.float64)))
    return np.concatenate(rows)


# -- CTC ---------------------------------------------------------------------------------------------------------------


def collapse(path: NDArray[np.int64]) -> list[int]:
    """A path's labels: repeats are merged, then blanks (0) are dropped."""
    return [int(b) for a, b in zip([0, *path[:-1]], path, strict=True) if b not in (0, a)]


def occupation(probabilities: Array, labels: list[int]) -> Array:
    """[T, 2 L + 1]: for each step, the share of all alignments' probability in each place of "blank, label, blank, ..."
    (Graves et al. 2006, equations 6 to 11)."""
    places = [0, *(place for label in labels for place in (label, 0))]
    seen = probabilities[:, places]
    skips = np.array([k > 1 and places[k] not in (0, places[k - 2]) for k in range(len(places))])

    def sweep(rows: Array, start: Array, leap: NDArray[np.bool_]) -> Array:
        found = [start * rows[0]]
        for row in rows[1:]:
            last = found[-1] / max(found[-1].sum(), FLOOR)  # only the ratios within a step matter
            one, two = np.roll(last, 1), np.roll(last, 2)
            one[0] = two[:2] = 0
            found.append((last + one + two * leap) * row)
        return np.array(found)

    ends = (np.arange(len(places)) < 2).astype(float)
    forth = sweep(seen, ends, skips)
    back = sweep(seen[::-1, ::-1], ends, np.roll(skips[::-1], 2))[::-1, ::-1]
    both = forth * back / np.maximum(seen, FLOOR)
    return both / both.sum(1, keepdims=True)


def prefixes(probabilities: Array, width: int) -> list[dict[tuple[int, ...], float]]:
    """Prefix beam search (Hannun et al. 2014): after each step the ``width`` most probable prefixes, each with the sum
    of its paths' probabilities."""
    beam: dict[tuple[int, ...], tuple[float, float]] = {(): (1.0, 0.0)}  # paths that end in blank, in a label
    steps = []
    for row in probabilities:
        new: dict[tuple[int, ...], list[float]] = {}
        for prefix, (blank, label) in beam.items():
            same = new.setdefault(prefix, [0.0, 0.0])
            same[0] += (blank + label) * row[0]
            if prefix:
                same[1] += label * row[prefix[-1]]
            for token in range(1, len(row)):
                before = blank if prefix and token == prefix[-1] else blank + label
                new.setdefault((*prefix, token), [0.0, 0.0])[1] += before * row[token]
        possible = [item for item in new.items() if sum(item[1]) > 0]
        kept = sorted(possible, key=lambda item: -sum(item[1]))[:width]
        total = sum(sum(parts) for _, parts in kept)
        beam = {prefix: (blank / total, label / total) for prefix, (blank, label) in kept}
        steps.append({prefix: sum(parts) for prefix, parts in beam.items()})
    return steps


# -- pictures ----------------------------------------------------------------------------------------------------------


def _axes(rows: int = 1, height: float = 4.0) -> tuple[Any, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, height))
    return figure, list(np.atleast_1d(figure.subplots(rows)))


def _shade(axes: Axes, values: Array, names: list[str], times: Array) -> None:
    """An image of ``values`` [T, K] with times in seconds on the x axis and ``names`` on the y axis."""
    edges = (times[0], times[-1] + times[1] - times[0])
    axes.imshow(values.T, aspect="auto", origin="lower", extent=(*edges, -0.5, len(names) - 0.5), cmap="Blues")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("seconds")


def posterior(probabilities: Array, tokens: list[str], times: Array) -> Any:
    figure, (axes,) = _axes()
    axes.fill_between(times, probabilities[:, 0], step="post", color="0.88", label="blank")
    for token in np.flatnonzero(probabilities[:, 1:].max(0) > 0.2) + 1:
        axes.step(times, probabilities[:, token], where="post", label=tokens[token])
    axes.set(xlabel="seconds", ylabel="posterior", ylim=(0, 1.02), xlim=(times[0], times[-1]))
    axes.set_title("CTC waits in the blank and says each word in a few steps")
    axes.legend(fontsize=8, loc="center right")
    return figure


def lattice(probabilities: Array, labels: list[int], tokens: list[str], times: Array) -> Any:
    figure, (axes,) = _axes(height=1.5 + 0.35 * (2 * len(labels) + 1))
    names = ["blank", *(name for label in labels for name in (tokens[label], "blank"))]
    _shade(axes, np.sqrt(occupation(probabilities, labels)), names, times)
    axes.set_title("every alignment of these words at once: the share of paths in each place (square root)")
    return figure


def beam(probabilities: Array, tokens: list[str], times: Array) -> Any:
    figure, (axes,) = _axes()
    steps = prefixes(probabilities, 64)
    most = {prefix: max(step.get(prefix, 0.0) for step in steps) for prefix in {p for step in steps for p in step}}
    shown = sorted(sorted(most, key=lambda prefix: -most[prefix])[: 2 * BEAM], key=len)
    for prefix in shown:
        said = " ".join(tokens[token] for token in prefix[-3:]) or "(nothing)"
        line = [step.get(prefix, 0.0) for step in steps]
        axes.step(times, line, where="post", label=("... " if len(prefix) > 3 else "") + said)
    axes.set(xlabel="seconds", ylabel="share of the beam", ylim=(0, 1.02), xlim=(times[0], times[-1]))
    axes.set_title("prefix beam search: how probable each prefix is by now")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def attention(model: Model) -> Any:
    """The decoder's attention weights over the encoder's memory, for each sign that it writes."""
    figure, all_axes = _axes(len(PHRASES), 2.7 * len(PHRASES))
    task, manifest = Rewrite(model.manifest), model.manifest
    for axes, phrase in zip(all_axes, PHRASES, strict=True):
        words = [known(word) for word in phrase.split()]
        rows = task.rows([words], 16)
        rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % manifest.chunk), (0, 0)))
        stepper, looks, said = Stepper(model), [], []
        for chunk in np.split(rows, rows.shape[1] // manifest.chunk, axis=1):
            outputs = stepper.step(np.ascontiguousarray(chunk))
            looks.append(outputs["attention"][0])
            said.append(outputs["signs"][0])
        weights, signs = np.concatenate(looks), np.concatenate(said)
        at = np.flatnonzero(signs)
        names = ["end" if sign == END else task.options.signs[sign - 2] for sign in signs[at]]
        used = np.flatnonzero(weights[at].max(0) > 1e-3)
        axes.imshow(weights[at][:, used[0] : used[-1] + 1], aspect="auto", cmap="Blues", vmin=0)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_xticks(range(len(words)), words, fontsize=8)
        axes.set_ylabel("written")
    all_axes[0].set_title("where the decoder looks while it writes")
    return figure
