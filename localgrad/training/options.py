"""Options of a method or a network by name, as a command line gives them: `name=value`."""

import ast
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from localgrad.training.kinds import shown, wrong


def bind(
    kind: str, name: str, function: Callable, given: Mapping[str, Any], pairs: Sequence[str], own: Sequence[str] = ()
) -> dict[str, Any]:
    """The keyword arguments of a method or a network, checked by name.

    Args:
      kind, name: what messages call it, for example `method` and `scl`.
      function: what takes the arguments.
      given: arguments that have a flag of their own; those that are None are left out.
      pairs: the others, each `name=value`; a value is a Python literal or else text.
      own: arguments that are not the user's to give.

    Raises:
      ValueError: for a pair that is none, an argument that is given twice or that the function does not take, naming
        those that it does, or a value of a pair that is not of the annotated type.

    Examples:
      >>> from localgrad.blocks import mlp
      >>> bind("net", "mlp", mlp, {"widths": (8, 8), "norm": None}, ["dropout=0.5"])
      {'widths': (8, 8), 'dropout': 0.5}
    """
    fixed = function.keywords if isinstance(function, partial) and kind == "method" else {}
    parameters = inspect.signature(function).parameters
    takes = [key for key in parameters if key not in (*own, *fixed)]
    found = {key: value for key, value in given.items() if value is not None}
    flags = set(found)
    for pair in pairs:
        key, separator, text = (part.strip() for part in pair.partition("="))
        if not separator:
            raise ValueError(f"--{kind}_options is a list of name=value; got {pair!r}.")
        if key in found:
            other = f"by --{key}={shown(found[key])} too" if key in flags else "twice"
            raise ValueError(f"--{kind}_options: {key} is given {other}: give it once.")
        found[key] = _value(text)
    for key in found:
        if key not in takes:
            raise ValueError(f"{kind} {name!r} has no option {key!r}; it has {', '.join(takes) or 'none'}.")
    for key in set(found) - flags:
        expected = wrong(parameters[key].annotation, found[key])
        if expected:
            raise ValueError(
                f"--{kind}_options holds a value of the wrong type: {key} is {expected}; got {shown(found[key])}."
            )
    return found


def rejoined(pieces: Sequence[str]) -> tuple[str, ...]:
    """Pairs as they were given, of a list flag that was cut at every comma: one within brackets belongs to a value.

    Examples:
      >>> rejoined(["aux=hidden", "weights=(0", "1)", "head=mlp"])
      ('aux=hidden', 'weights=(0,1)', 'head=mlp')
    """
    found: list[str] = []
    for piece in pieces:
        if found and sum(map(found[-1].count, "([{")) > sum(map(found[-1].count, ")]}")):
            found[-1] += f",{piece}"
        else:
            found.append(piece)
    return tuple(found)


def call(kind: str, make: Callable[[], Any]) -> Any:
    """Makes a method or a network of checked options; a value of the wrong type is refused like one out of range.

    Raises:
      ValueError: naming the flag.
    """
    try:
        return make()
    except TypeError as error:
        raise ValueError(f"--{kind}_options holds a value of the wrong type: {error}.") from error


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):  # the last two of deep nesting
        return text
