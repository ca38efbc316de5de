"""What a network's predictions show: which classes it confuses, and where it is sure and wrong."""

import numpy as np
from scipy.special import softmax

from localgrad.data import Dataset
from localgrad.prediction.naming import class_names
from localgrad.report.facts import Example, Seen
from localgrad.report.pictures import data_address

_WORDS = 60  # of a text that is shown


def seen(scores: np.ndarray, dataset: Dataset, count: int = 12) -> Seen:
    """The confusion of classes, and the examples that the network is surest of and wrong.

    Args:
      scores: `(N, C)`, of the last exit, in the order of the split.
      dataset: the split, of N examples.
      count: most examples to show.

    Examples:
      >>> told = Dataset("two", np.array([[0.5], [1.5], [2.5]]), np.array([0, 1, 1]), 2)
      >>> found = seen(np.array([[2.0, 0.0], [3.0, 0.0], [0.0, 1.0]]), told)
      >>> found.confusion.tolist(), [(each.number, each.label, each.words) for each in found.worst]
      ([[1, 0], [1, 1]], [(1, '1', '1.5')])
    """
    classes = scores.shape[1]
    names = class_names(dataset.label_names, classes)
    predicted, labels = scores.argmax(axis=1), np.asarray(dataset.labels)
    confusion = np.zeros((classes, classes), int)
    np.add.at(confusion, (labels, predicted), 1)
    confidence = softmax(scores.astype(np.float64), axis=1).max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    white = int(dataset.inputs.max()) if dataset.inputs.dtype == np.uint8 and len(wrong) else 255
    worst = [
        Example(int(i), names[labels[i]], names[predicted[i]], float(confidence[i]), *_shown(dataset, i, white))
        for i in wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
    ]
    return Seen(confusion, names, tuple(worst))


def _shown(dataset: Dataset, i: int, white: int) -> tuple[str, str]:
    """An input as a picture's address, or else as words; bytes of a split go up to `white`."""
    given = np.asarray(dataset.inputs[i])
    if dataset.words is not None:
        words = [dataset.words[number] for number in given if number]
        return "", " ".join(words[:_WORDS]) + (" ..." if len(words) > _WORDS else "")
    if given.ndim == 3 and given.shape[-1] in (1, 3):
        return data_address(given, white), ""
    return "", ", ".join(f"{number:.4g}" for number in given.ravel()[:_WORDS])
