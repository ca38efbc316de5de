"""Training and validation data as a program gives them: arrays, a Dataset, a loader, a folder, a file."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from localgrad.data.checks import as_array, channels_first, check_digits
from localgrad.data.columns import as_column, check_rows, columns_of, pair_of
from localgrad.data.csv_rows import is_csv
from localgrad.data.dataset import Dataset
from localgrad.data.files import expanded
from localgrad.data.images import image_folder
from localgrad.data.look import looked_at
from localgrad.data.streams import Stream, check_again
from localgrad.data.tables import csv_file
from localgrad.tasks import Task


def as_split(
    given: Any,
    name: str,
    *,
    shape: tuple[int, ...],
    dtype: Any,
    task: Task,
    fields: tuple[str, str] | None = None,
    label_names: Sequence[str] | None = None,
    like: Dataset | None = None,
) -> Dataset | Stream:
    """A split as `source` or `stream_source` takes it.

    Args:
      given: a pair of arrays `(x, y)` or a mapping of them, a `Dataset`, the path of a folder of pictures (one folder a
        class) or of a CSV file, or anything that can be gone through again and again, of pairs or dicts.
      name: what messages call it.
      shape, dtype: of one example's inputs, as the model takes them.
      task: what is learnt.
      fields: names of the inputs and the targets, where they come as dicts or columns.
      label_names: the classes, in order, where the program names them; a folder or a CSV file is numbered by them.
      like: the training split, whose columns and classes' names this one has too.

    Raises:
      ValueError, FileNotFoundError: it is none of these, or not what the model takes.
    """
    if isinstance(given, str | os.PathLike):
        names = label_names if like is None else like.label_names
        if names is None and name != "train" and task.classes is not None:
            names = tuple(map(str, range(task.classes)))  # the training split has numbers and no names: so has this one
        given = _read(given, shape, task, fields, names, None if like is None else like.columns)
    if isinstance(given, Mapping) and given and all(map(_is_set, given.values())):
        raise ValueError(
            f"{name} is a {type(given).__name__} of the splits {', '.join(map(str, given))}: give one of them, such as "
            f"data[{next(iter(given))!r}]."
        )
    if not isinstance(given, Dataset) and _is_arrays(given):
        x, y = pair_of(given, fields, name)
        given = Dataset(name, x, y, task=task)
    if not isinstance(given, Dataset):
        if columns := columns_of(given):
            raise ValueError(
                f"{name} is a table with the columns {', '.join(columns)}: give a pair of those of the inputs and that "
                "of the targets."
            )
        check_again(given, name)
        return Stream(name, given, shape, task, fields)
    given = _as_arrays(given, name)
    if like is None and jnp.issubdtype(dtype, jnp.floating):
        check_digits(given.inputs, dtype, f"{name}: inputs")
    return _as_model_takes(given, name, shape, dtype, task, label_names)


def _as_model_takes(
    given: Dataset, name: str, shape: tuple[int, ...], dtype: Any, task: Task, label_names: Sequence[str] | None
) -> Dataset:
    """A dataset with inputs, targets and classes' names as a model takes them; for the arguments see `as_split`.

    Raises:
      ValueError: it is of another task, shape, dtype, number or order of classes.
    """
    inputs = given.inputs
    if shape[-1:] == (1,) and inputs.shape[1:] == shape[:-1]:
        inputs = inputs[..., None]  # grey pictures (N, H, W)
    theirs = given.learnt
    if theirs.name != task.name or theirs.outputs > task.outputs:
        raise ValueError(
            f"{name} is for {theirs.name} of {theirs.outputs} outputs; the model is for {task.name} of {task.outputs}."
        )
    named = given.label_names
    if named is not None and task.classes is not None and len(named) != task.classes:
        raise ValueError(
            f"{name} has {len(named)} classes, {', '.join(named[:9])}{', ...' * (len(named) > 9)}; the model has "
            f"{task.classes}: make it with classes={len(named)}, or name all classes by label_names."
        )
    labels = as_column(given.labels, task, name)
    split = looked_at(given._replace(inputs=inputs, labels=labels, task=task, classes=None))
    if split.inputs.shape[1:] != shape:
        hint = channels_first(split.inputs.shape, shape)
        raise ValueError(
            f"{name}: an example of its inputs is {split.inputs.shape[1:]}; the model takes {shape}.{hint}"
        )
    if jnp.issubdtype(dtype, jnp.integer):
        if not np.issubdtype(split.inputs.dtype, np.integer):
            raise ValueError(f"{name}: its inputs are {split.inputs.dtype}; the model takes {jnp.dtype(dtype)}.")
        split = split._replace(inputs=split.inputs.astype(dtype, copy=False))
    if label_names is not None and split.label_names is None:
        split = split._replace(label_names=tuple(label_names))
    if label_names is not None and split.label_names != tuple(label_names):
        raise ValueError(
            f"{name}: its classes are {', '.join(split.label_names or ())}, and label_names are "
            f"{', '.join(label_names)}: the same numbers mean something else. Leave label_names out."
        )
    return split


def _read(
    path: str | os.PathLike,
    shape: tuple[int, ...],
    task: Task,
    fields: tuple[str, str] | None,
    names: Sequence[str] | None,
    columns: Sequence[str] | None,
) -> Dataset:
    found = expanded(os.fspath(path))
    if found.is_dir():
        if len(shape) != 3:
            raise ValueError(
                f"{found} is a folder of pictures, and the model takes inputs {shape}; expected (H, W, C)."
            )
        return image_folder(found, shape=shape, label_names=names)
    if is_csv(found.name):
        if fields is not None and fields[0]:
            raise ValueError(
                f"{found}: fields={fields}; the inputs of a CSV file are all columns but the label's: say "
                f'fields=("", "{fields[1]}"), and leave other columns out of the file.'
            )
        label = None if fields is None else fields[1]
        return csv_file(found, task=task, label=label, label_names=names, inputs=columns)
    if not found.exists():
        raise FileNotFoundError(f"{found} is not there: give a folder of pictures, or a CSV file.")
    raise ValueError(f"{found} is a file of another kind: give a folder of pictures, or a CSV file.")


def _as_arrays(given: Dataset, name: str) -> Dataset:
    """A set whose inputs are an array, with the names of the columns of tables, its inputs' and its targets'."""
    check_rows(given.inputs, given.labels, name)
    columns, targets = given.columns or columns_of(given.inputs), given.targets or columns_of(given.labels)
    inputs = np.asarray(as_array(given.inputs, f"{name}: inputs"))
    return given._replace(inputs=inputs, columns=columns, targets=targets)


def _is_set(given: Any) -> bool:
    """Whether it is a whole set of examples, such as one split of a Hugging Face dataset, and not one column."""
    return isinstance(given, Iterable) and hasattr(given, "column_names")


def _is_arrays(given: Any) -> bool:
    """Whether it is one pair of whole arrays, and not a list of batches."""
    if isinstance(given, Mapping):
        return True
    return isinstance(given, tuple | list) and len(given) == 2 and any(hasattr(part, "shape") for part in given)
