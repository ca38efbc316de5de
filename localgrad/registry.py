"""Things by name, for command lines: tables of methods, networks, data sets, schedules; anyone can add a row."""

import re
from collections import UserDict
from collections.abc import Iterable, Mapping, MutableMapping
from typing import TypeVar

T = TypeVar("T")
_NAME = re.compile(r"[A-Za-z]\w*")


class Table(UserDict[str, T]):
    """Rows by name, all of one type, in the order in which they were added.

    Args:
      row: the type of a row.
      register: name of the function that makes one and adds it, for whoever puts something else here by hand.
      rows: those of the library.

    Raises:
      TypeError: for what is no row, however it is put in.
    """

    def __init__(self, row: type[T], register: str, rows: Mapping[str, T]):
        self._row, self._register = row, register
        super().__init__(rows)

    def __setitem__(self, name: str, row: T) -> None:
        if not isinstance(row, self._row):
            found = f"{name!r} would be a {self._row.__name__} here; got {type(row).__name__}"
            raise TypeError(f"{found}. localgrad.{self._register}({name!r}, ...) makes one and adds it.")
        super().__setitem__(name, row)


def check_known(kind: str, name: str, known: Iterable[str]) -> None:
    """Refuses a name that is not among those known.

    Raises:
      ValueError: listing those that are.

    Examples:
      >>> check_known("method", "al", ["al", "bp"])
      >>> check_known("method", "magic", ["al", "bp"])
      Traceback (most recent call last):
      ValueError: unknown method 'magic'; there are al, bp.
    """
    known = list(known)
    if name not in known:
        raise ValueError(f"unknown {kind} {name!r}; there are {', '.join(known)}.")


def chosen(kind: str, name: str, table: Mapping[str, T]) -> T:
    """The row of a name.

    Raises:
      ValueError: as `check_known`.
    """
    check_known(kind, name, table)
    return table[name]


def add(kind: str, table: MutableMapping[str, T], name: str, row: T) -> None:
    """Adds a row; a module that is imported again may add its own a second time.

    Raises:
      ValueError: a name that is no word, or that another row has.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"a {kind} is called by a word of letters, digits and _; got {name!r}.")
    if name in table and _origin(table[name]) != _origin(row):
        raise ValueError(f"there is a {kind} {name!r} already: choose another name.")
    table[name] = row


def _origin(row: object) -> tuple[str, str]:
    """Where the function of a row was written."""
    function = next(filter(callable, row)) if isinstance(row, tuple) else row
    function = getattr(function, "func", function)  # of a partial
    return getattr(function, "__module__", ""), getattr(function, "__qualname__", repr(function))
