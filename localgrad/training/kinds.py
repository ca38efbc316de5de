"""Values that come from outside, a command line or a `config.json`, against the annotations of what takes them."""

import math
import types
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Literal, Union, get_args, get_origin

_MOST = 2**32  # no size or count is larger, nor a seed
_LARGEST = 3.4028234663852886e38  # of float32


def wrong(annotation: Any, value: Any) -> str | None:
    """What is expected, if a value is not of the annotated type or no number that a network can use; otherwise None.

    Args:
      annotation: made of int, float, bool, str, None, `Literal`, unions, and sequences and tuples of these;
        anything else is taken to fit.
      value: an int is a float too, a bool neither; a list is a tuple.

    Examples:
      >>> wrong(int | None, "few"), wrong(float, float("nan")), wrong(tuple[int, ...], (8, 1.5))
      ('a whole number or None', 'a finite number', 'a list of whole numbers')
      >>> wrong(float, 3), wrong(int, 3)
      (None, None)
    """
    return None if _fits(annotation, value) else _words(annotation)


def shown(value: Any) -> str:
    """A value as a message has it, on one line that can be read."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of more digits than Python writes
        return "a number of thousands of digits"
    return text if len(text) < 80 else text[:80] + " ..."


def _fits(annotation: Any, value: Any) -> bool:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(_fits(each, value) for each in inner)
    if origin is Literal:
        return isinstance(value, str)  # which of them is for the taker to say
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return isinstance(value, list | tuple) and all(_fits(inner[0], each) for each in value)
    if annotation in (None, types.NoneType):
        return value is None
    if annotation is bool:
        return isinstance(value, bool)
    if annotation is int:
        return isinstance(value, Integral) and not isinstance(value, bool) and abs(int(value)) <= _MOST
    if annotation is float:
        number = isinstance(value, Real) and not isinstance(value, bool)
        return number and -_LARGEST <= value <= _LARGEST and math.isfinite(value)
    return isinstance(value, str) if annotation is str else True


def _words(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(map(_words, inner))
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"a list of {_words(inner[0]).removeprefix('a ')}s"
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    simple = {bool: "True, False", int: "a whole number", float: "a finite number", str: "a text"}
    return "None" if annotation in (None, types.NoneType) else simple.get(annotation, str(annotation))
