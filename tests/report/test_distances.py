"""Class distances against loops over pairs."""

import numpy as np
import pytest

from localgrad.report import class_distances


def test_against_loops() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 2, 3)), np.repeat([0, 1, 2], 4)
    centres = [x[y == k].mean(axis=0) for k in range(3)]
    inter = np.mean([np.linalg.norm(centres[i] - centres[j]) for i in range(3) for j in range(i)])
    within = [
        np.mean([np.linalg.norm(a - b) for i, a in enumerate(x[y == k]) for b in x[y == k][:i]]) for k in range(3)
    ]
    found = class_distances(x, y)
    np.testing.assert_allclose(found, [inter, np.mean(within), inter / np.mean(within)], rtol=1e-12)


def test_too_few_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="at least two classes"):
        class_distances(np.zeros((3, 2)), np.array([0, 0, 1]))
