"""The data that a program gives with its model: read, looked at, and scaled."""

import json
from collections.abc import Mapping, Sequence, Set
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from localgrad import data
from localgrad.base import Model
from localgrad.tasks import Task
from localgrad.training.job import float_of

Split = data.Dataset | data.Stream


class GivenData(NamedTuple):
    """What a program gives besides the model.

    Attributes:
      train, validation, test: see `localgrad.fit`.
      fields, label_names, name: see `localgrad.fit`.
      mean, std, normalise: see `localgrad.fit`.
      augment: `(keys, inputs) -> inputs`, or None.
      views: how often each example is augmented.
    """

    train: Any
    validation: Any = None
    test: Any = None
    fields: tuple[str, str] | None = None
    label_names: Sequence[str] | None = None
    name: str | None = None
    mean: Any = None
    std: Any = None
    normalise: bool | None = None
    augment: data.Augment | None = None
    views: int = 1


class Read(NamedTuple):
    """The data of a run, looked at.

    Attributes:
      splits: see `Job`.
      like: the training split, or a set of zeros of a stream's shapes.
      look: what a pass over a stream of training found; None of arrays.
      stats: mean and deviation, or None.
      says, evaluated: what the training data and the other splits are, for the run's identity.
    """

    splits: dict[str, Split]
    like: data.Dataset
    look: data.Look | None
    stats: tuple[np.ndarray, np.ndarray] | None
    says: str
    evaluated: str


def read_given(model: Model, given: GivenData) -> Read:
    """Looks at the data, and takes statistics of the training split where inputs are to be scaled.

    Raises:
      ValueError, FileNotFoundError: they are not what the model takes.
    """
    shape, dtype = model.x_spec.shape[model.batch_axis + 1 :], model.x_spec.dtype
    if given.views > 1:
        if shape[:1] != (given.views,):
            raise ValueError(f"views={given.views}, and the model takes inputs {shape}; expected that many in front.")
        shape = shape[1:]
    names = None if given.label_names is None else _names(given.label_names, model.task)
    split = partial(data.as_split, shape=shape, dtype=dtype, task=model.task, fields=given.fields, label_names=names)
    train = split(given.train, "train")
    like = train if isinstance(train, data.Dataset) else None
    splits: dict[str, Split] = {"train": train}
    if isinstance(given.validation, float):
        splits |= _held_out(train, given.validation)
    elif given.validation is not None:
        splits["validation"] = split(given.validation, "validation", like=like)
    if given.test is not None:
        splits["test"] = split(given.test, "test", like=like)
    train, look = splits["train"], None
    if isinstance(train, data.Stream):
        if given.augment is not None or given.views > 1 or model.trials is not None:
            raise ValueError(
                "a loader augments by itself, and gives its batches to one trial: leave augment, views and trials out."
            )
        look = train.look(model.batch_size)
        zeros, labels = np.zeros((1, *shape), look.dtype), np.zeros(1, np.int32)
        like = data.Dataset(train.name, zeros, labels, task=model.task, label_names=names, columns=look.columns)
        says = f"{look.examples} of {shape} {look.dtype}"
    else:
        like = train
        called = {"label_names": train.label_names, "columns": train.columns, "targets": train.targets}
        says = json.dumps(
            data.fingerprint(train) | {what: names for what, names in called.items() if names is not None}
        )
    splits = {name: data.alike(each, like) for name, each in splits.items()}
    stats = _stats(given, like, look, float_of(dtype) is not None)
    evaluated = {name: _seen(each) for name, each in splits.items() if name != "train"}
    return Read(splits, like, look, stats, says, json.dumps(evaluated))


def _names(given: Any, task: Task) -> tuple[str, ...]:
    """The names of the classes, or of the labels of several, in order.

    Raises:
      ValueError: they have no order, are one text, too many or too few, or not all different.
    """
    if isinstance(given, str | Mapping | Set):
        raise ValueError(f"label_names is a {type(given).__name__}; expected a list, the name of class 0 first.")
    names, expected = tuple(map(str, given)), task.outputs if task.name == "multilabel" else task.classes
    if expected is not None and len(names) != expected:
        raise ValueError(f"label_names has {len(names)} names, and the model {expected} classes.")
    if len(set(names)) < len(names):
        raise ValueError(f"label_names has {max(names, key=names.count)!r} more than once: give each class a name.")
    return names


def _seen(split: Split) -> Any:
    return data.fingerprint(split) if isinstance(split, data.Dataset) else "a loader"


def _held_out(train: Split, share: float) -> dict[str, Split]:
    """A share of the training examples as validation, the same whatever the seed of the run, and what is left."""
    if not isinstance(train, data.Dataset):
        raise ValueError(f"validation={share}: a share can be held out of arrays alone; give a loader of its own.")
    count = round(share * len(train.inputs)) if 0 < share < 1 else 0
    if not 0 < count < len(train.inputs):
        raise ValueError(
            f"validation={share} of {len(train.inputs)} examples; expected a share that leaves some in both."
        )
    order = np.random.default_rng(0).permutation(len(train.inputs))
    pick = lambda rows: train._replace(inputs=train.inputs[rows], labels=train.labels[rows])
    return {"train": pick(np.sort(order[count:])), "validation": pick(np.sort(order[:count]))}


def _stats(
    given: GivenData, like: data.Dataset, look: data.Look | None, floats: bool
) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean and deviation: those that are given, or of the training split where it is scaled: bytes, by default."""
    if (given.mean is None) != (given.std is None):
        raise ValueError("give both mean and std, or neither.")
    if given.mean is not None:
        if given.normalise is False or not floats:
            raise ValueError("mean and std are given, and inputs are not scaled: leave one of the two out.")
        return _as_given(given, like)
    wanted = like.inputs.dtype == np.uint8 if given.normalise is None else given.normalise
    if wanted and not floats:
        if given.normalise:
            raise ValueError("normalise=True, and the model takes whole numbers as they are: leave it out.")
        return None
    if not wanted or like.words is not None:
        return None
    return (look.mean, look.std) if look is not None else data.pixel_stats(like)


def _as_given(given: GivenData, like: data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the deviation that are given, of each channel.

    Raises:
      ValueError: they are not one number or one a channel, or not in units of the inputs.
    """
    mean, std = (np.asarray(values, np.float64) for values in (given.mean, given.std))
    channels = like.inputs.shape[-1]
    for name, values in (("mean", mean), ("std", std)):
        if values.shape not in ((), (channels,)):
            raise ValueError(f"{name} is {values.shape}; expected one number, or one for each of {channels} channels.")
    if like.inputs.dtype == np.uint8 and (mean > 0).all() and (mean < 1).all() and (std < 1).all():
        raise ValueError(
            "mean and std are those of numbers between 0 and 1, and the inputs are bytes from 0 to 255: give 255 times "
            "both."
        )
    return np.broadcast_to(mean, (channels,)), np.broadcast_to(std, (channels,))


def preprocessing(given: GivenData, stats: tuple[np.ndarray, np.ndarray] | None) -> str:
    """What is done to inputs, for the run's identity."""
    augment = "" if given.augment is None else getattr(given.augment, "__qualname__", repr(type(given.augment)))
    return json.dumps({"stats": None if stats is None else [list(map(float, s)) for s in stats], "augment": augment})
