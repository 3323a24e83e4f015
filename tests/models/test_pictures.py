"""What the pictures of the docs are drawn from: against brute force over every path."""

from __future__ import annotations

import itertools

import numpy as np

from models.training.pictures import collapse, occupation, prefixes


def distributions(steps: int, tokens: int = 3) -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.ones(tokens), steps)


def test_occupation_is_the_share_of_all_paths() -> None:
    for labels in ([1, 2], [1, 1], [2]):
        probabilities = distributions(5)
        places = [0, *(place for label in labels for place in (label, 0))]
        want = np.zeros((5, len(places)))
        for path in itertools.product(range(len(places)), repeat=5):
            steps = list(itertools.pairwise(path))
            forward = all(b - a in (0, 1) or (b - a == 2 and places[b] not in (0, places[a])) for a, b in steps)
            if forward and path[0] < 2 and path[-1] >= len(places) - 2:
                want[range(5), path] += np.prod(probabilities[range(5), [places[k] for k in path]])
        np.testing.assert_allclose(occupation(probabilities, labels), want / want.sum(1, keepdims=True), atol=1e-12)


def test_a_wide_beam_adds_up_every_path() -> None:
    probabilities = distributions(5)
    want: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(3), repeat=5):
        prefix = tuple(collapse(np.array(path)))
        want[prefix] = want.get(prefix, 0.0) + float(np.prod(probabilities[range(5), path]))
    found = prefixes(probabilities, 1000)[-1]
    assert found.keys() == want.keys()
    np.testing.assert_allclose([found[p] for p in want], list(want.values()), atol=1e-12)
