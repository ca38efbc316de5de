"""What outputs are called: classes and labels by their names, numbers by the shortest text that gives them back."""

from collections.abc import Sequence
from typing import Any

import numpy as np

_NONE = "(none)"  # of an example that no label is on


def class_names(label_names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """What each of so many classes is called; a class without a name is called by its number.

    Args:
      label_names: the names of the first classes, or of all; None where classes have numbers only.
      count: number of classes.

    Examples:
      >>> class_names(("no", "yes"), 3), class_names(None, 2)
      (('no', 'yes', 'class 2'), ('0', '1'))
    """
    if label_names is None:
        return tuple(map(str, range(count)))
    return (*label_names[:count], *(f"class {i}" for i in range(len(label_names), count)))


def check_label_names(label_names: Sequence[str] | None, task: str, outputs: int) -> None:
    """Refuses names that are not those of the outputs.

    Args:
      label_names: of classes or of labels; None where they have none.
      task: the name of what is learnt.
      outputs: number of classes or labels.

    Raises:
      ValueError: there are more names than classes, or another number than of labels, or two labels of one name.
    """
    if label_names is None or task == "regression":
        return
    found = len(label_names)
    if found > outputs or (found < outputs and task == "multilabel"):
        kind = "labels" if task == "multilabel" else "classes"
        raise ValueError(f"label_names has {found} names, and the network {outputs} {kind}: give one for each.")
    twice = [name for i, name in enumerate(label_names) if name in label_names[:i]]
    if twice and task == "multilabel":
        raise ValueError(f"label_names has two labels {twice[0]!r}: give each a name of its own.")


def plain_number(value: Any) -> int | float:
    """A number of an array as Python has it: of a float the one with the fewest digits that is the same in its type.

    Examples:
      >>> plain_number(np.float32(0.1)), float(np.float32(0.1)), plain_number(np.int32(3))
      (0.1, 0.10000000149011612, 3)
    """
    return int(value) if np.issubdtype(np.asarray(value).dtype, np.integer) else float(str(value))


def as_text(value: Any) -> str:
    """A plain value as text: a name, a number, several names or several numbers.

    Examples:
      >>> as_text("cat"), as_text(1234567.0), as_text([0.5, -1.0]), as_text(["sea", "sun"]), as_text([])
      ('cat', '1234567', '0.5 -1', 'sea, sun', '(none)')
    """
    if isinstance(value, list):
        named = all(isinstance(each, str) for each in value)
        return (", " if named else " ").join(map(as_text, value)) or _NONE
    return value if isinstance(value, str) else repr(value).removesuffix(".0")
