"""What a trained network must be told besides its weights: `model.json` in a workdir.

With it, `config.json` and a checkpoint, a network predicts where its training data are not.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from localgrad import data
from localgrad.base import Model
from localgrad.prediction.naming import check_label_names
from localgrad.tasks import Task, classification, multilabel, regression, tokens

NAME = "model.json"
_DIGEST = "sha256"
_TASKS: dict[str, Callable[[int], Task]] = {
    "classification": classification,
    "regression": regression,
    "multilabel": multilabel,
    "tokens": tokens,
}


class About(NamedTuple):
    """Inputs as they come from outside, what is done to them, and what outputs mean.

    Attributes:
      shape: of one example's inputs.
      raw_dtype: of inputs as they were given, such as `uint8`.
      dtype: of inputs as the model takes them.
      task: the name of what was learnt, see `localgrad.tasks`.
      outputs: width of the scores.
      dataset: the data's name.
      mean, std: of each channel, in units of the raw inputs; None where nothing is scaled.
      label_names: what each class or label is called; None where they have numbers only.
      columns: of a table, what each column of the inputs is called.
      words: of texts, the vocabulary.
      lengths: of texts, the lengths that batches of training had.
      epoch_steps: batches in an epoch of training.
      ahead: targets are what comes next, see `localgrad.tasks.tokens`.
    """

    shape: tuple[int, ...]
    raw_dtype: str
    dtype: str
    task: str
    outputs: int
    dataset: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    label_names: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None
    words: tuple[str, ...] | None = None
    lengths: tuple[int, ...] = ()
    epoch_steps: int = 1
    ahead: bool = False

    def to_json(self) -> dict[str, Any]:
        """As `model.json` holds it, with a digest of the rest by which damage is noticed."""
        found = {name: list(value) if isinstance(value, tuple) else value for name, value in self._asdict().items()}
        return {**found, _DIGEST: _sha256(found)}

    @classmethod
    def from_json(cls, saved: Any, where: Any) -> "About":
        """What a `model.json` holds.

        Raises:
          ValueError: it is damaged, or of another version.
        """
        try:
            fields = {key: value for key, value in saved.items() if key != _DIGEST}
            if saved.get(_DIGEST) != _sha256(fields):
                raise ValueError("its digest is of other content")
            tuples: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()
            }
            about = cls(**tuples)
            jnp.dtype(about.dtype), np.dtype(about.raw_dtype), sum(about.shape), int(about.outputs)
        except (TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"{where} is damaged, or of another version ({error}). Start the run again, which makes it anew."
            ) from None
        return about

    @property
    def learnt(self) -> Task:
        """The task, made again.

        Raises:
          ValueError: for one that is not of this library.
        """
        if self.task not in _TASKS:
            raise ValueError(f"the task {self.task!r} is none of {', '.join(_TASKS)}: give the model that was trained.")
        return tokens(self.outputs, ahead=self.ahead) if self.task == "tokens" else _TASKS[self.task](self.outputs)

    @property
    def stats(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Mean and deviation as `data.source` takes them."""
        return None if self.mean is None or self.std is None else (np.asarray(self.mean), np.asarray(self.std))

    def like(self, rows: int = 1) -> data.Dataset:
        """A set of zeros of these inputs, for what asks a set for its shapes."""
        inputs = np.zeros((rows, *self.shape), self.raw_dtype)
        task = self.learnt if self.task in _TASKS else None
        classes = self.outputs if task is None else None
        return data.Dataset(
            self.dataset, inputs, np.zeros(rows, np.int32), classes, self.words, task, self.label_names, self.columns
        )


def _sha256(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def about_of(
    model: Model,
    train: data.Dataset,
    stats: tuple[np.ndarray, np.ndarray] | None,
    *,
    lengths: Sequence[int] = (),
    epoch_steps: int = 1,
) -> About:
    """What is to be known of a model and its training split.

    Args:
      model: the model.
      train: its training split, or a set like it; inputs and names are looked at.
      stats: mean and deviation of each channel, or None.
      lengths, epoch_steps: see `About`.

    Raises:
      ValueError: the split's names are not those of the model's classes or labels.
    """
    task, names = model.task, train.label_names
    if names is None and task.name == "multilabel":
        names = train.targets  # columns of a data frame, one for each label
    check_label_names(names, task.name, task.outputs)
    whole = lambda values: tuple(np.asarray(values, np.float64).reshape(-1).tolist())
    return About(
        shape=tuple(map(int, train.inputs.shape[1:])),
        raw_dtype=str(train.inputs.dtype),
        dtype=str(model.x_spec.dtype),
        task=task.name,
        outputs=int(task.outputs),
        dataset=train.name,
        mean=None if stats is None else whole(stats[0]),
        std=None if stats is None else whole(stats[1]),
        label_names=names,
        columns=train.columns,
        words=train.words,
        lengths=tuple(map(int, lengths)),
        epoch_steps=int(epoch_steps),
        ahead=task.ahead,
    )
