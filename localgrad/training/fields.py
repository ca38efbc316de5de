"""What a field of a configuration is, may be and is for, beside its type and default: of which flags are made."""

import dataclasses
import types
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, get_args, get_origin

from localgrad.registry import check_known
from localgrad.training.kinds import shown, wrong


class Option(NamedTuple):
    """What is known of a field besides its type and default.

    Attributes:
      says: what the field is, for people.
      group: the heading it stands under in `--help`.
      choices: the values it may have, perhaps the names of a table that grows; None is any of its type.
      least, most: the bounds of a number.
      argument_of: `method` or `net`: it is handed to that by its own name, unless it is None.
      placement: it says where and how a run is carried out: a workdir may be resumed with another value where that
        does not change what the run computes, see `localgrad.training.placement`.
    """

    says: str
    group: str
    choices: Collection[str] | None = None
    least: float | None = None
    most: float | None = None
    argument_of: str | None = None
    placement: bool = False

    def check(self, name: str, value: Any) -> None:
        """Refuses a value that is none of the choices, or out of bounds; None is for the type to allow.

        Raises:
          ValueError: naming the field, and what it may be.
        """
        if value is None:
            return
        if self.choices is not None:
            check_known(name, value, self.choices)
        low, high = self.least is None or value >= self.least, self.most is None or value <= self.most
        if self.most is not None and not (low and high):
            raise ValueError(f"--{name} must be from {self.least} to {self.most}; got {value}.")
        if not low:
            raise ValueError(f"--{name} must be at least {self.least}; got {value}.")


def option(default: Any, says: str, **more: Any) -> Any:
    """A field of a dataclass; for the arguments see `Option`."""
    return dataclasses.field(default=default, metadata={"option": Option(says, **more)})


def plain_type(field: dataclasses.Field) -> tuple[Any, bool]:
    """The type of a field without None, or of the elements of a tuple; and whether it is a tuple.

    Examples:
      >>> made = dataclasses.make_dataclass("Made", [("widths", tuple[int, ...] | None)])
      >>> plain_type(dataclasses.fields(made)[0])
      (<class 'int'>, True)
    """
    parts = get_args(field.type) if get_origin(field.type) is types.UnionType else (field.type,)
    (kind,) = (part for part in parts if part is not types.NoneType)
    return (get_args(kind)[0], True) if get_origin(kind) is tuple else (kind, False)


def options(made: Any) -> Mapping[str, Option]:
    """The options of a dataclass, by field."""
    return {field.name: field.metadata["option"] for field in dataclasses.fields(made)}


def check_fields(values: Any) -> None:
    """Refuses a value of another type than its field has.

    Raises:
      ValueError: naming the field, its type and the value.
    """
    for field in dataclasses.fields(values):
        expected = wrong(field.type, getattr(values, field.name))
        if expected:
            raise ValueError(f"--{field.name} is {expected}; got {shown(getattr(values, field.name))}.")
