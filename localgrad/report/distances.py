"""How far a block's features hold the classes apart."""

from typing import NamedTuple

import numpy as np


class Distances(NamedTuple):
    """Mean distance between class centroids, mean pairwise distance within a class, and their ratio."""

    inter: float
    intra: float
    ratio: float


def class_distances(features: np.ndarray, labels: np.ndarray) -> Distances:
    """Distances between and within classes, Euclidean, of flattened features.

    Args:
      features: `(N, ...)`.
      labels: integers `(N,)`; at least two classes, each of at least two examples, are present.

    Raises:
      ValueError: for fewer than two classes, or a class of one example.

    References:
      Kao and Chen, Associated Learning, https://arxiv.org/abs/1906.05560, section 5.4

    Examples:
      >>> class_distances(np.array([[0.0], [2.0], [10.0], [12.0]]), np.array([0, 0, 1, 1]))
      Distances(inter=10.0, intra=2.0, ratio=5.0)
    """
    from scipy.spatial.distance import pdist  # not at start-up: only a study asks for it

    rows = features.reshape(len(features), -1).astype(np.float64)
    classes = [rows[labels == label] for label in np.unique(labels)]
    if len(classes) < 2 or min(map(len, classes)) < 2:
        raise ValueError("class distances need at least two classes of at least two examples each.")
    inter = float(pdist(np.stack([each.mean(axis=0) for each in classes])).mean())
    intra = float(np.mean([pdist(each).mean() for each in classes]))
    return Distances(inter, intra, inter / intra)
