"""The flags of a `Config`, one a field, made from what the field says of itself."""

import dataclasses
from typing import Any

from absl import flags

from localgrad.cli import shell
from localgrad.training import Config
from localgrad.training.config import OPTIONS
from localgrad.training.fields import Option, plain_type
from localgrad.training.options import rejoined

FLAGS = flags.FLAGS
_DEFINE = {str: flags.DEFINE_string, int: flags.DEFINE_integer, float: flags.DEFINE_float, bool: flags.DEFINE_bool}


def define() -> None:
    """Defines a flag for each field, of its type and with its default; a tuple is a list with commas."""
    fields = {field.name: field for field in dataclasses.fields(Config)}
    for name in OPTIONS:
        field = fields[name]
        kind, several = plain_type(field)
        make: Any = flags.DEFINE_list if several else _DEFINE[kind]
        make(field.name, field.default, _help(OPTIONS[field.name]))
        shell.headed[field.name] = OPTIONS[field.name].group


def values() -> dict[str, Any]:
    """What the flags say, by field.

    Raises:
      ValueError: for a list flag that is not of numbers.
    """
    found = {}
    for field in dataclasses.fields(Config):
        value = FLAGS[field.name].value
        kind, several = plain_type(field)
        if several and value is not None:
            value = rejoined(value) if kind is str else _numbers(field.name, value, kind)
        found[field.name] = value
    return found


def _numbers(name: str, words: list[str], kind: type) -> tuple[Any, ...]:
    try:
        return tuple(map(kind, words))
    except ValueError:
        given, what = ",".join(words), "whole numbers such as 64,32" if kind is int else "numbers such as 1,0.5"
        raise ValueError(f"--{name} is a list of {what}; got {given!r}.") from None


def _help(option: Option) -> str:
    """A field's meaning, with its choices and bounds."""
    more = [f"one of {', '.join(option.choices)}"] if option.choices is not None else []
    if option.most is not None:
        more.append(f"from {option.least} to {option.most}")
    elif option.least is not None:
        more.append(f"at least {option.least}")
    return "; ".join([option.says, *more])
