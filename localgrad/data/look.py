"""The checks that every dataset's arrays go through, whoever made them."""

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.data.checks import checked_inputs, checked_labels, checked_targets
from localgrad.data.dataset import Dataset


def checked(name: str, images: np.ndarray, labels: np.ndarray, classes: int, *, where: str) -> Dataset:
    """Makes a Dataset of images, or says what is wrong with its arrays.

    Args:
      name: the set's name.
      images: uint8 `(N, H, W, C)`.
      labels: integers `(N,)`.
      classes: number of classes.
      where: what the arrays were read from, for messages.

    Returns:
      The dataset, its labels as int32.

    Raises:
      ValueError: the shapes do not belong together, or a label is out of range.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
        raise ValueError(
            f"{where}: images are {images.dtype} {images.shape}; expected uint8 (N, H, W, C), none of them 0. "
            "Read the set anew, or choose another"
        )
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"{where}: found {len(labels)} labels for {len(images)} images; expected one each. "
            "The two files are not of one split, or one is damaged: fetch both again"
        )
    return Dataset(name, images, np.asarray(checked_labels(labels, f"{where}: labels", classes)), classes)


def looked_at(dataset: Dataset) -> Dataset:
    """A dataset that anyone may have made, as arrays of the types that `Dataset` names; it is looked through once.

    Raises:
      ValueError: naming the field that is not as `Dataset` says, and what was found there.
    """
    name = dataset.name
    if dataset.task is not None and dataset.classes not in (None, dataset.task.classes):
        raise ValueError(
            f"{name}: classes={dataset.classes} beside a task of {dataset.task.classes}; leave classes out"
        )
    inputs = np.asarray(checked_inputs(dataset.inputs, f"{name}: inputs"))
    if inputs.ndim < 2 or 0 in inputs.shape:
        raise ValueError(
            f"{name}: inputs are {inputs.shape}; expected examples along the first axis and at least one more, none of "
            "them 0" + (": give inputs[:, None] for one number an example" if inputs.ndim == 1 and inputs.size else "")
        )
    labels = _labels(dataset, inputs)
    if dataset.words is not None:
        inputs = _checked_texts(name, inputs, len(dataset.words))
    return dataset._replace(inputs=inputs, labels=labels)


def _labels(dataset: Dataset, inputs: np.ndarray) -> np.ndarray:
    """Labels of classes as int32, or the targets of another task as it wants them."""
    name = dataset.name
    if dataset.task is not None and dataset.task.name != "classification":
        spec = jax.ShapeDtypeStruct(inputs.shape, inputs.dtype)
        targets = np.asarray(checked_targets(dataset.labels, f"{name}: labels", dataset.task, spec))
        if targets.shape != dataset.task.y_spec(spec).shape:
            raise ValueError(
                f"{name}: labels are {targets.shape} for inputs {inputs.shape}; {dataset.task.name} wants "
                f"{dataset.task.y_spec(spec).shape}"
            )
        if np.isnan(dataset.task.check(jnp.asarray(targets), jnp.float32)):
            raise ValueError(
                f"{name}: labels from {targets.min()} to {targets.max()} are no targets of {dataset.task.name}: see "
                "localgrad.tasks for what it wants"
            )
        return targets
    classes = dataset.classes if dataset.task is None else dataset.task.classes
    if isinstance(classes, bool) or not isinstance(classes, int | np.integer) or classes < 1:
        raise ValueError(
            f"{name}: classes={classes!r}; expected a whole number of at least 1, or task= of localgrad.tasks"
        )
    labels = np.asarray(dataset.labels)
    if labels.ndim == 2 and len(labels) == len(inputs):
        raise ValueError(
            f"{name}: labels are {labels.shape}; expected one integer an example. "
            + ("Give labels[:, 0]" if labels.shape[1] == 1 else "Of one-hot labels give labels.argmax(-1)")
            + ", or task= of localgrad.tasks for targets of another kind"
        )
    labels = np.asarray(checked_labels(dataset.labels, f"{name}: labels", int(classes)))
    if labels.shape != inputs.shape[:1]:
        raise ValueError(f"{name}: found labels {labels.shape} for {len(inputs)} inputs; expected one each")
    return labels


def _checked_texts(name: str, inputs: np.ndarray, words: int) -> np.ndarray:
    """Texts as int32."""
    if inputs.ndim != 2 or not np.issubdtype(inputs.dtype, np.integer):
        raise ValueError(
            f"{name}: it has words, and its inputs are {inputs.dtype} {inputs.shape}; expected int32 (N, L)"
        )
    if inputs.min() < 0 or inputs.max() >= words:
        raise ValueError(
            f"{name}: numbers of words run from {inputs.min()} to {inputs.max()}; expected 0 to {words - 1}, its words"
        )
    return inputs.astype(np.int32, copy=False)
