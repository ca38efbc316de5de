"""Statistics of a split's inputs, by which all splits are normalised."""

import numpy as np

from localgrad.data.dataset import Dataset
from localgrad.data.look import looked_at

_ROWS = 1 << 16  # rows of numbers that statistics are taken of at a time


def pixel_stats(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, or of each column of a table, in units of the inputs.

    Take them of the training split and use them for all three.  A channel that never varies gets a deviation of 1,
    so that it normalises to 0.

    Args:
      dataset: the training split, of images or other numbers `(N, ..., C)`.

    Returns:
      `(mean, std)`, each float64 `(C,)`.

    Raises:
      ValueError: the set is one of texts, or its inputs are no finite numbers.

    >>> grey = Dataset("grey", np.array([[[[0]]], [[[4]]]], np.uint8), np.zeros(2, np.int32), 1)
    >>> pixel_stats(grey)
    (array([2.]), array([2.]))
    """
    if dataset.words is not None:
        raise ValueError(f"{dataset.name} holds texts, whose numbers stand for words: they have no mean")
    inputs = looked_at(dataset).inputs
    if inputs.dtype != np.uint8:
        return _column_stats(inputs.reshape(-1, inputs.shape[-1]))
    # A histogram of the 256 bytes a channel is exact and needs no float copy of the images.
    byte = np.arange(256, dtype=np.float64)
    channels = np.moveaxis(inputs, -1, 0)
    counts = np.stack([np.bincount(channel.ravel(), minlength=256) for channel in channels])
    mean = (counts @ byte) / counts.sum(axis=1)
    deviation = byte[None, :] - mean[:, None]
    std = np.sqrt((counts * deviation**2).sum(axis=1) / counts.sum(axis=1))
    return mean, np.where(std > 0, std, 1.0)


def range_stats(dataset: Dataset, low: float = -1.0, high: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation that bring the inputs of a split into `[low, high]`, in the place of `pixel_stats`.

    Args:
      dataset: the training split, of images or other numbers `(N, ..., C)`.  Those of bytes lie between 0 and the
        brightest there is, the same in all channels; others between the ends of each channel or column.
      low, high: the ends.

    Returns:
      `(mean, std)`, each float64 `(C,)`; a channel that never varies becomes 0.

    Raises:
      ValueError: the set is one of texts, or its inputs are no finite numbers.

    >>> grey = Dataset("grey", np.array([[[[0]]], [[[4]]]], np.uint8), np.zeros(2, np.int32), 1)
    >>> range_stats(grey)
    (array([2.]), array([2.]))
    """
    if dataset.words is not None:
        raise ValueError(f"{dataset.name} holds texts, whose numbers stand for words: they have no range")
    inputs = looked_at(dataset).inputs
    if inputs.dtype == np.uint8:
        ends = np.zeros(inputs.shape[-1]), np.full(inputs.shape[-1], float(inputs.max()))
    else:
        axes = tuple(range(inputs.ndim - 1))
        ends = inputs.min(axis=axes).astype(np.float64), inputs.max(axis=axes).astype(np.float64)
    varies = ends[1] > ends[0]
    std = np.where(varies, (ends[1] - ends[0]) / (high - low), 1.0)
    return np.where(varies, ends[0] - low * std, ends[0]), std


def _column_stats(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each column of `(M, C)`, in float64 and in parts, so that no large copy is made."""
    starts = range(0, len(rows), _ROWS)
    mean = sum(rows[i : i + _ROWS].sum(axis=0, dtype=np.float64) for i in starts) / len(rows)
    squares = sum(((rows[i : i + _ROWS].astype(np.float64) - mean) ** 2).sum(axis=0) for i in starts)
    std = np.sqrt(squares / len(rows))
    varies = rows.min(axis=0) != rows.max(axis=0)  # rounding of the mean alone would give a constant a deviation
    return mean, np.where(varies & (std > 0), std, 1.0)
