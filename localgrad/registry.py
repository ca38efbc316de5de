"""Tables of methods, networks, data sets and schedules by name, for command lines; anyone can add a row."""

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
      register: name of the function of `localgrad` that makes a row and adds it, for the error message.
      rows: those of the library.

    Raises:
      TypeError: for a value that is no row, here or when it is set later.
    """

    def __init__(self, row: type[T], register: str, rows: Mapping[str, T]):
        self._row, self._register = row, register
        super().__init__(rows)

    def __setitem__(self, name: str, row: T) -> None:
        if not isinstance(row, self._row):
            found = f"{name!r} would be a {self._row.__name__} here; got {type(row).__name__}"
            raise TypeError(f"{found}. localgrad.{self._register}({name!r}, ...) makes one and adds it.")
        super().__setitem__(name, row)


def check_known(kind: str, name: str, known: Iterable[str], of: str = "") -> None:
    """Refuses a name that is not among those known.

    Args:
      kind: what the name is of, such as `profile`.
      name: the name.
      known: all that there are.
      of: whose they are, such as `method 'al'`, for the error message.

    Raises:
      ValueError: listing those that are known.

    Examples:
      >>> check_known("method", "al", ["al", "bp"])
      >>> check_known("method", "magic", ["al", "bp"])
      Traceback (most recent call last):
      ValueError: unknown method 'magic'; there are al, bp.
      >>> check_known("profile", "old", ["neco", "iclr"], of="method 'al'")
      Traceback (most recent call last):
      ValueError: unknown profile 'old' of method 'al'; there are neco, iclr.
    """
    known = list(known)
    if name not in known:
        whose = f" of {of}" if of else ""
        raise ValueError(f"unknown {kind} {name!r}{whose}; there are {', '.join(known)}.")


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
      ValueError: for a name that is no word, or that another row has.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"a {kind} is called by a word of letters, digits and _; got {name!r}.")
    if name in table and _origin(table[name]) != _origin(row):
        raise ValueError(f"there is a {kind} {name!r} already: choose another name.")
    table[name] = row


def _origin(row: object) -> tuple[str, str]:
    """The module and the name of a row's function."""
    function = next(filter(callable, row)) if isinstance(row, tuple) else row
    function = getattr(function, "func", function)  # of a partial
    return getattr(function, "__module__", ""), getattr(function, "__qualname__", repr(function))
