"""Reads the IDX files of MNIST and its descendants, plain or gzipped.

Format: http://yann.lecun.com/exdb/mnist, "the IDX file format": a magic number of four bytes (0, 0, type, dimensions),
the size of each dimension as a big-endian uint32, then the data.
"""

import gzip
import math
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from localgrad.data.files import told

UNSIGNED_BYTE = 0x08
KINDS = {1: "labels", 3: "images"}
FETCH = "Fetch the file again"
_CHUNK = 1 << 20  # bytes unpacked at a time
_DEFLATE = 1032  # times that deflate shrinks bytes at most


def read_images(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Reads an images file.

    Args:
      path: the file, gzipped if its name ends in `.gz`.
      shape: the height and width that its images must have.

    Returns:
      uint8 `(N, H, W)`.

    Raises:
      FileNotFoundError: it is not there.
      ValueError: the file is damaged, or holds something else.
    """
    return read(path, dims=3, tail=shape)


def read_labels(path: Path) -> np.ndarray:
    """Reads a labels file: uint8 `(N,)`; raises ValueError if it is damaged, or holds something else."""
    return read(path, dims=1)


def read(path: Path, dims: int, tail: tuple[int, ...] = ()) -> np.ndarray:
    """Reads an IDX file of unsigned bytes, and no more of it than its header says.

    Args:
      path: the file, gzipped if its name ends in `.gz`.
      dims: number of dimensions that it must have.
      tail: sizes that its last dimensions must have.

    Returns:
      A uint8 array.

    Raises:
      FileNotFoundError: it is not there.
      ValueError: not an IDX file of this kind, or cut short, or too long.
    """
    with told(path, FETCH):
        size = path.stat().st_size
        with path.open("rb") as file:
            if path.suffix != ".gz":
                return _read(path, file, size, dims, tail)
            try:
                with gzip.GzipFile(fileobj=file) as unpacked:
                    return _read(path, unpacked, _DEFLATE * size, dims, tail)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise ValueError(
                    f"{path}: found {size} bytes that do not unpack ({error}); expected a whole gzip file. {FETCH}"
                ) from error


def _read(path: Path, file: IO[bytes] | gzip.GzipFile, most: int, dims: int, tail: tuple[int, ...]) -> np.ndarray:
    """The array of an open file of at most so many bytes."""
    header = 4 + 4 * dims
    shape = _shape(path, file.read(header), dims)
    if shape[dims - len(tail) :] != tail:
        raise ValueError(
            f"{path}: its images are {'x'.join(map(str, shape[1:]))}; expected {'x'.join(map(str, tail))}. "
            "It belongs to another set: put the right file in its place"
        )
    wanted = math.prod(shape)
    # Where the header asks for more than there can be, what there is is counted and thrown away.
    data = bytearray() if wanted <= most else None
    found = 0
    while found <= wanted and (chunk := file.read(min(_CHUNK, wanted + 1 - found))):
        found += len(chunk)
        if data is not None:
            data += chunk
    if found != wanted or data is None:
        what = "cut short" if found < wanted else "too long"
        raise ValueError(
            f"{path}: {what}, {found} bytes of data; expected {wanted} for the shape {shape} in its header. {FETCH}"
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


def _shape(path: Path, raw: bytes, dims: int) -> tuple[int, ...]:
    """What the header says."""
    expected = bytes([0, 0, UNSIGNED_BYTE, dims])
    magic = raw[:4]
    if magic != expected:
        kind = KINDS.get(magic[3]) if magic[:3] == expected[:3] and len(magic) == 4 else None
        if kind:
            found, remedy = f"it is an IDX file of {kind}", "Two files may have changed names: put each in its place"
        else:
            found, remedy = "it is no IDX file of unsigned bytes", FETCH
        raise ValueError(
            f"{path}: magic number 0x{magic.hex()}: {found}; "
            f"expected 0x{expected.hex()} ({KINDS.get(dims, f'{dims} dimensions')}). {remedy}"
        )
    if len(raw) < 4 + 4 * dims:
        raise ValueError(f"{path}: cut short, {len(raw)} bytes; expected a header of {4 + 4 * dims}. {FETCH}")
    return tuple(int(size) for size in np.frombuffer(raw, ">u4", count=dims, offset=4))
