"""Pictures from files: one, many, or a folder with a folder for each class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from localgrad.data.dataset import Dataset
from localgrad.data.files import expanded, told

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def read_image(path: str | Path, shape: Sequence[int] | None = None) -> np.ndarray:
    """A picture as uint8 `(H, W, C)`, upright where a camera says how it was held.

    Args:
      path: a file that Pillow reads, such as PNG or JPEG.
      shape: `(H, W, C)` that it is made to have: C of 1 is grey, 3 colours, 4 with transparency; a picture of another
        height or width is resized, bilinearly.  None leaves it as it is, grey or in colours.

    Raises:
      FileNotFoundError: it is not there.
      ValueError: it is no picture, or damaged, or one of numbers that are not of 8 or 16 bits.
    """
    from PIL import Image, ImageOps

    path = expanded(path)
    with told(path, "Give a PNG or JPEG file", Exception), Image.open(path) as image:
        eight = _eight_bits(path, ImageOps.exif_transpose(image))
        mode = _MODES[shape[2]] if shape is not None else "L" if eight.mode in ("1", "L") else "RGB"
        found = eight.convert(mode)
        if shape is not None and found.size != (shape[1], shape[0]):
            found = found.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
        pixels = np.asarray(found, np.uint8)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def image_folder(
    path: str | Path, *, shape: Sequence[int] | None = None, label_names: Sequence[str] | None = None
) -> Dataset:
    """A folder with a folder of pictures for each class, whose names are the classes'.

    Args:
      path: the folder; pictures may lie at any depth below that of their class, other files are passed over, and
        hidden ones.
      shape: `(H, W, C)` that all of them are made to have, see `read_image`; None wants them of one size.
      label_names: the classes, in order, such as those of the training split; None is the folders by the alphabet.

    Returns:
      Images uint8 `(N, H, W, C)` in the order of their paths, with `label_names`.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: it has no pictures, a class that is not known, or pictures of several sizes; the message names one.
    """
    path = expanded(path)
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is no folder: give one that has a folder of pictures for each class.")
    folders = sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))
    classes = tuple(folder.name for folder in folders) if label_names is None else tuple(label_names)
    hidden = lambda file: any(part.startswith(".") for part in file.relative_to(path).parts)
    files = [
        (file, folder.name)
        for folder in folders
        for file in sorted(folder.rglob("*"))
        if _is_picture(file) and not hidden(file)
    ]
    if not files:
        raise ValueError(
            f"{path} has no folders with pictures ({', '.join(IMAGE_ENDINGS)}): give one folder for each class."
        )
    if unknown := sorted({name for _, name in files} - set(classes)):
        raise ValueError(f"{path} has a folder {unknown[0]!r}, which is no class; there are {', '.join(classes)}.")
    if len(classes) < 2:
        raise ValueError(f"{path} has one class, {classes[0]!r}: give one folder for each of two or more.")
    pictures = [read_image(file, shape) for file, _ in files]
    other = next((i for i, picture in enumerate(pictures) if picture.shape != pictures[0].shape), None)
    if other is not None:
        raise ValueError(
            f"{files[0][0]} is {pictures[0].shape} and {files[other][0]} is {pictures[other].shape}: say to which "
            "shape all are resized, shape=(H, W, C)."
        )
    labels = np.array([classes.index(name) for _, name in files], np.int32)
    return Dataset(path.name, np.stack(pictures), labels, len(classes), label_names=classes)


def _eight_bits(path: Path, image: Any) -> Any:
    """A picture of 16 bits a pixel as one of 8, as those in colours are read; others as they are."""
    from PIL import Image

    if image.mode != "F" and not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 0xFFFF:
        raise ValueError(
            f"{path} holds grey values of another kind than 8 or 16 bits, from {values.min()} to {values.max()}: read "
            "it yourself, and give arrays."
        )
    return Image.fromarray((values.astype(np.uint16) >> 8).astype(np.uint8))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_ENDINGS and path.is_file()
