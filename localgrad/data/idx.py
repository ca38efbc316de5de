"""Reads the IDX files of MNIST and its descendants, plain or gzipped.

Format: http://yann.lecun.com/exdb/mnist, "the IDX file format": a magic number of four bytes (0, 0, type, dimensions),
the size of each dimension as a big-endian uint32, then the data.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

UNSIGNED_BYTE = 0x08
KINDS = {1: "labels", 3: "images"}
FETCH = "Fetch the file again"


def read_images(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Reads an images file.

    Args:
      path: the file, gzipped if its name ends in `.gz`.
      shape: the height and width that its images must have.

    Returns:
      uint8 `(N, H, W)`.

    Raises:
      ValueError: the file is damaged, or holds something else.
    """
    images = read(path, dims=3)
    if images.shape[1:] != shape:
        raise ValueError(
            f"{path}: its images are {images.shape[1]}x{images.shape[2]}; expected {shape[0]}x{shape[1]}. "
            "It belongs to another set: put the right file in its place"
        )
    return images


def read_labels(path: Path) -> np.ndarray:
    """Reads a labels file: uint8 `(N,)`; raises ValueError if it is damaged, or holds something else."""
    return read(path, dims=1)


def read(path: Path, dims: int) -> np.ndarray:
    """Reads an IDX file of unsigned bytes.

    Args:
      path: the file, gzipped if its name ends in `.gz`.
      dims: number of dimensions that it must have.

    Returns:
      A uint8 array.

    Raises:
      ValueError: not an IDX file of this kind, or cut short, or too long.
    """
    raw = _bytes(path)
    header = 4 + 4 * dims
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
    if len(raw) < header:
        raise ValueError(f"{path}: cut short, {len(raw)} bytes; expected a header of {header}. {FETCH}")

    shape = tuple(int(size) for size in np.frombuffer(raw, ">u4", count=dims, offset=4))
    found_bytes, wanted_bytes = len(raw) - header, math.prod(shape)
    if found_bytes != wanted_bytes:
        what = "cut short" if found_bytes < wanted_bytes else "too long"
        raise ValueError(
            f"{path}: {what}, {found_bytes} bytes of data; expected {wanted_bytes} for the shape {shape} in its "
            f"header. {FETCH}"
        )
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def _bytes(path: Path) -> bytes:
    raw = path.read_bytes()
    if path.suffix != ".gz":
        return raw
    try:
        return gzip.decompress(raw)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{path}: found {len(raw)} bytes that do not unpack ({error}); expected a whole gzip file. {FETCH}"
        ) from error
