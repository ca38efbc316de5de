"""What all splits of a run, and what it predicts on, must have alike: types, columns, classes and words."""

from collections.abc import Sequence
from dataclasses import replace

from localgrad.data.checks import as_trained
from localgrad.data.columns import in_order
from localgrad.data.dataset import Dataset
from localgrad.data.streams import Stream


def alike(split: Dataset | Stream, like: Dataset) -> Dataset | Stream:
    """A split as a network that is trained on another one takes it; a loader looks at each batch when it comes.

    Args:
      split: any split.
      like: the training split, or a set like it.

    Returns:
      The split, its inputs of the type of training and their columns in its order.

    Raises:
      ValueError: it has inputs of another kind or shape than training, see `as_trained`; another task; other columns;
        or other names for the classes, other words, or other targets, for the same numbers.
    """
    if isinstance(split, Stream):
        return replace(split, trained_on=like.inputs.dtype, columns=like.columns)
    _check_asks_the_same(split, like)
    split = split._replace(inputs=as_trained(split.inputs, like.inputs.dtype, f"{split.name}: inputs"))
    for found, expected, what in (
        (split.label_names, like.label_names, "classes"),
        (split.words, like.words, "words"),
        (split.targets, like.targets, "targets"),
    ):
        if found is not None and expected is not None and tuple(found) != tuple(expected):
            raise ValueError(
                f"{split.name}: its {what} are {_some(found)}, and those of training {_some(expected)}: the same "
                "numbers mean something else. Number both alike."
            )
    if split.label_names is None and like.label_names is not None:
        _check_numerals(split.name, like.label_names)
    if split.columns is None or like.columns is None:
        return split
    inputs = in_order(split.inputs, split.columns, like.columns, f"{split.name}: inputs")
    return split._replace(inputs=inputs, columns=like.columns)


def _check_asks_the_same(split: Dataset, like: Dataset) -> None:
    """Refuses a split that asks something else of a network than the training split does.

    Args:
      split: any split.
      like: the training split.

    Raises:
      ValueError: it is for another task, or of another number of classes or outputs; or its examples have another
        shape, which of texts is their length and may differ.
    """
    theirs, ours = split.learnt, like.learnt
    if (theirs.name, theirs.outputs) != (ours.name, ours.outputs):
        raise ValueError(
            f"{split.name} is for {theirs.name} of {theirs.outputs}, and training for {ours.name} of {ours.outputs}: "
            "give all splits the same task, with the same number of classes or outputs."
        )
    if split.words is None and split.inputs.shape[1:] != like.inputs.shape[1:]:
        raise ValueError(
            f"{split.name}: an example of its inputs is {split.inputs.shape[1:]}, and of training "
            f"{like.inputs.shape[1:]}: give all splits the same shape."
        )


def _check_numerals(name: str, classes: Sequence[str]) -> None:
    """Refuses labels that are bare numbers beside classes that are called by other numbers than theirs."""
    other = next((i for i, called in enumerate(classes) if not called.isdecimal() or int(called) != i), None)
    if other is not None and all(called.isdecimal() for called in classes):
        raise ValueError(
            f"{name}: its labels are numbers alone, and class {other} of training is called {classes[other]!r}: say "
            "which is meant by label_names, or give both in one form."
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
