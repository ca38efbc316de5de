"""Paths that users give, and lines of text files: what cannot be read is told with the file, and the line."""

import gzip
import math
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LINE = 1 << 22  # bytes; no line of a text or of word vectors is longer, so that a damaged file cannot fill the memory
_CLOUD = re.compile(r"(gs|s3|az|hf):/+")


def expanded(path: str | Path) -> Path:
    """A path as the file system wants it: `~` is the home folder, and `gs://bucket/folder` is read through etils.

    Raises:
      ValueError: there is no home folder of that name.
    """
    cloud = _CLOUD.match(str(path))
    if cloud:  # pathlib would make one slash of two
        from etils import epath

        return epath.Path(f"{cloud[1]}://{str(path)[cloud.end() :]}")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path}: {error} Write the whole path") from None


@contextmanager
def told(path: Any, remedy: str, *others: type[Exception]) -> Iterator[None]:
    """Tells in one line what went wrong while a file or folder was read.

    Args:
      path: what is read.
      remedy: what the user can do.
      others: exceptions of the reader, besides those of the file system.

    Raises:
      FileNotFoundError: it is not there.
      ValueError: it is there, and cannot be read.
    """
    kinds: tuple[type[Exception], ...] = (OSError, *others)
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is not there. {remedy}") from None
    except kinds as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise  # it is told already
        reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        raise ValueError(f"{path}: cannot be read ({' '.join(reason.split())[:200]}). {remedy}") from error


@contextmanager
def reached(path: Path) -> Iterator[None]:
    """Tells in one line what went wrong on the way to a folder: the libraries of clouds have errors of their own.

    Raises:
      ValueError: it is a cloud's and cannot be read.
    """
    try:
        yield
    except (ValueError, FileNotFoundError, ImportError):
        raise
    except Exception as error:
        if "://" not in str(path):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path}: cannot be read ({reason}). Look whether it is there, and you may read it") from error


def lines(path: Path, remedy: str = "Fetch the file again") -> Iterator[tuple[int, str]]:
    """The lines of a text in UTF-8, numbered from 1, without their ends; gzipped if the name ends in `.gz`.

    One line at a time: a file that unpacks to more than there is memory for does no harm.

    Raises:
      FileNotFoundError: it is not there.
      ValueError: it cannot be read, with the line if it holds bytes that are no text, or far too many of them.
    """
    number = 0
    with told(path, remedy, EOFError, zlib.error), path.open("rb") as file:
        unpacked = gzip.GzipFile(fileobj=file) if path.suffix.lower() == ".gz" else file
        while line := unpacked.readline(_LINE + 1):
            number += 1
            text = _text(path, number, line, remedy)
            yield number, text.removeprefix("\ufeff") if number == 1 else text  # the mark that Excel sets before UTF-8


def _text(path: Path, number: int, line: bytes, remedy: str) -> str:
    if len(line) > _LINE:
        raise ValueError(f"{path}, line {number}: more than {_LINE} bytes without an end; it is no text file. {remedy}")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        found = line[error.start : error.start + 4].hex(" ")
        raise ValueError(
            f"{path}, line {number}: byte {error.start + 1} begins no character of UTF-8 (found {found}). {remedy}"
        ) from None
    if "\0" in text:
        raise ValueError(f"{path}, line {number}: a zero byte; it is no text file, or damaged. {remedy}")
    return text.rstrip("\r\n")


def is_number(text: str) -> bool:
    """Whether a cell or a word of a file is a number; 1_000 is one in Python alone."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def by_number(text: str) -> tuple[int, float, str]:
    """The key by which names of classes are sorted and so numbered: numbers by number, and all others behind them.

    Examples:
      >>> sorted(["10", "none", "9", "1"], key=by_number)
      ['1', '9', '10', 'none']
    """
    number = float(text) if is_number(text) else math.nan
    return (0, number, text) if math.isfinite(number) else (1, 0.0, text)
