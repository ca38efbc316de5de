"""Which runs a comparison is made of: rows of methods, and the values of fields that each of them tries."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from localgrad.registry import check_known
from localgrad.training import Config
from localgrad.training.config import OPTIONS
from localgrad.training.fields import plain_type
from localgrad.training.workdir import folder_of

_TAKEN = ("method", "workdir", "trials", "seed", "plugin")  # fields that a comparison gives itself, or shares
_OF_METHODS = ("micro_batches",)  # fields of the placement that not all methods have


class Point(NamedTuple):
    """One run of a row: the values that it tries, by field, and its configuration."""

    tries: dict[str, Any]
    config: Config


class Row(NamedTuple):
    """A method, perhaps with fields of its own, and the runs of which the best on validation stands for it.

    Attributes:
      name: as the user wrote it, and its folder's.
      points: one, or one for each combination of values.
    """

    name: str
    points: tuple[Point, ...]


def rows_of(base: Config, methods: Sequence[str], sweeps: Sequence[str] = ()) -> list[Row]:
    """The runs of a comparison, each in a folder of its own below that of `base`.

    Args:
      base: what all runs share; `workdir` is the comparison's.
      methods: each a method's name, or `name:field=value:field=value`.
      sweeps: each `field=value,value,...`; of several, every combination is tried.

    Raises:
      ValueError: for a method, a field or a value that cannot be, or a row that is there twice.

    Examples:
      >>> found = rows_of(Config(workdir="runs/both"), ["al:profile=iclr", "bp"], ["learning_rate=1e-4,1e-3"])
      >>> [point.config.workdir for row in found for point in row.points][1:3]
      ['runs/both/al:profile=iclr/learning_rate=0.001', 'runs/both/bp/learning_rate=0.0001']
    """
    if not methods:
        raise ValueError("there is nothing to compare: --methods=al,bp, for example.")
    if len(set(methods)) < len(methods):
        raise ValueError(f"--methods={','.join(methods)} has a row twice.")
    swept = [_swept(sweep) for sweep in sweeps]
    fields = [field for field, _ in swept]
    if len(set(fields)) < len(fields):
        raise ValueError(f"--sweep is given once for each field; got {', '.join(fields)}.")
    rows = []
    for text in methods:
        name, *given = text.split(":")
        own = dict(_assigned("methods", pair) for pair in given)
        twice = set(own) & set(fields)
        if twice:
            raise ValueError(f"--methods={text} fixes {twice.pop()}, which --sweep varies: leave out one of them.")
        points = []
        for values in itertools.product(*(values for _, values in swept)):
            tries = dict(zip(fields, values, strict=True))
            folder = "/".join([str(base.workdir), text, *([_words(tries)] if tries else [])])
            changes = {"method": name, **own, **tries, "workdir": folder}
            points.append(Point(tries, dataclasses.replace(base, **changes)))
        rows.append(Row(text, tuple(points)))
    folders = [str(folder_of(point.config.workdir)) for row in rows for point in row.points]
    if len(set(folders)) < len(folders):
        raise ValueError(f"--sweep={'; '.join(sweeps)} has a value twice.")
    return rows


def _words(values: dict[str, Any]) -> str:
    return ",".join(f"{field}={value}" for field, value in values.items())


def _swept(text: str) -> tuple[str, list[Any]]:
    field, separator, values = text.partition("=")
    if not separator or not values:
        raise ValueError(f"--sweep is field=value,value,... such as learning_rate=1e-4,1e-3; got {text!r}.")
    return field, [_assigned("sweep", f"{field}={value}")[1] for value in values.split(",")]


def _assigned(flag: str, pair: str) -> tuple[str, Any]:
    """A field and its value of `field=value`."""
    field, separator, text = pair.partition("=")
    if not separator:
        raise ValueError(f"--{flag}: {pair!r} is not field=value.")
    check_known(f"field in --{flag}", field, OPTIONS)
    if field in _TAKEN or (OPTIONS[field].placement and field not in _OF_METHODS):
        raise ValueError(f"--{flag}: {field} is the same for the whole comparison; give --{field} itself.")
    (about,) = (each for each in dataclasses.fields(Config) if each.name == field)
    kind, several = plain_type(about)
    words = {"true": True, "false": False}
    try:
        if kind is bool:
            return field, words[text.lower()]
        return field, (kind(text),) if several else kind(text)
    except (ValueError, KeyError):
        raise ValueError(f"--{flag}: {field} is of type {kind.__name__}; got {text!r}.") from None
