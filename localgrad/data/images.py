"""Pictures from files: one, many, or a folder with a folder for each class."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from localgrad.data.dataset import SPLITS, VALIDATION_NAMES, Dataset
from localgrad.data.files import by_number, expanded, told
from localgrad.data.pictures import check_white, eight_bits, is_grey, mode_of, on_white

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
_SPLITS = (*SPLITS, *VALIDATION_NAMES, "training", "testing", "dev")  # what people call folders of them
_OF_SYSTEMS = ("__MACOSX", "Thumbs.db", "desktop.ini")  # hidden where they come from


def read_image(path: str | Path, shape: Sequence[int] | None = None) -> np.ndarray:
    """A picture as uint8 `(H, W, C)`, upright where a camera says how it was held, on white where it is transparent.

    Args:
      path: a file that Pillow reads, such as PNG or JPEG.
      shape: `(H, W, C)` that it is made to have: C of 1 is grey, 3 colours, 4 with transparency; a picture of another
        height or width is resized, bilinearly.  None leaves it as it is, grey or in colours.

    Raises:
      FileNotFoundError: it is not there.
      ValueError: it is no picture, or damaged, or one of numbers that are not of 8 or 16 bits, or of 16 and small, so
        that nobody knows which is white.
    """
    path = expanded(path)
    pixels, largest = _read(path, shape)
    check_white(largest, str(path))
    return pixels


def image_folder(
    path: str | Path, *, shape: Sequence[int] | None = None, label_names: Sequence[str] | None = None
) -> Dataset:
    """A folder with a folder of pictures for each class, whose names are the classes'.

    Args:
      path: the folder; pictures may lie at any depth below that of their class, in linked folders too; other files are
        passed over, and hidden ones.
      shape: `(H, W, C)` that all of them are made to have, see `read_image`; None wants them of one size.
      label_names: the classes, in order, such as those of the training split; None is the folders, numbers by number
        and others by the alphabet.

    Returns:
      Images uint8 `(N, H, W, C)` in the order of their classes and paths, with `label_names`.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: it has no pictures, a class that is not known or has none, splits in place of classes, or pictures of
        several sizes; the message names one.
    """
    path = expanded(path)
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is no folder: give one that has a folder of pictures for each class.")
    if shape is not None:
        mode_of(shape)
    found = {name: list(_files(path / name, (path.resolve(),))) for name in _folders(path)}
    classes = tuple(found) if label_names is None else tuple(label_names)
    _check_folders(path, found, classes, trained_on=label_names is None)
    files = [(file, name) for name, each in found.items() for file in each if _is_picture(file)]
    read = [_read(file, shape) for file, _ in files]
    pictures = [pixels for pixels, _ in read]
    other = next((i for i, picture in enumerate(pictures) if picture.shape != pictures[0].shape), None)
    if other is not None:
        raise ValueError(
            f"{files[0][0]} is {pictures[0].shape} and {files[other][0]} is {pictures[other].shape}: say to which "
            "shape all are resized, shape=(H, W, C)."
        )
    check_white(max((largest for _, largest in read if largest is not None), default=None), f"{path}: a picture")
    labels = np.array([classes.index(name) for _, name in files], np.int32)
    return Dataset(path.name, np.stack(pictures), labels, len(classes), label_names=classes)


def _read(path: Path, shape: Sequence[int] | None) -> tuple[np.ndarray, int | None]:
    """A picture as bytes, and what none of its values was above if they had 16 bits."""
    from PIL import Image

    mode = None if shape is None else mode_of(shape)
    with told(path, "Give a PNG or JPEG file", Exception), Image.open(path) as opened:
        image, largest = eight_bits(path, opened)
        mode = mode or ("L" if is_grey(image) else "RGB")
        image = (image if mode == "RGBA" else on_white(image, str(path))).convert(mode)
        if shape is not None and image.size != (shape[1], shape[0]):
            image = image.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
        pixels = np.asarray(image, np.uint8)
    return (pixels[..., None] if pixels.ndim == 2 else pixels), largest


def _folders(path: Path) -> list[str]:
    """The names of the folders in a folder, in the order in which classes are numbered."""
    return sorted((child.name for child in path.iterdir() if child.is_dir() and not _hidden(child)), key=by_number)


def _files(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """All files below a folder, in order; linked folders are gone into, but not back into those `above`."""
    real = folder.resolve()
    if real in above:
        return
    for child in sorted(folder.iterdir()):
        if _hidden(child):
            continue
        if child.is_dir():
            yield from _files(child, (*above, real))
        elif child.is_file() or child.is_symlink():  # a link to nothing is told when it is read
            yield child


def _check_folders(path: Path, found: dict[str, list[Path]], classes: tuple[str, ...], *, trained_on: bool) -> None:
    """Refuses folders that are no classes, and such as have no pictures; a class that is not tested may have none."""
    splits = [name for name in found if name.lower() in _SPLITS]
    if splits and len(splits) == len(found) and (trained_on or not set(splits) <= set(classes)):
        raise ValueError(
            f"{path} has the folders {', '.join(splits)}, which are splits and no classes: give each for itself, "
            f"{' and '.join(str(path / name) for name in splits)}."
        )
    endings = ", ".join(IMAGE_ENDINGS)
    empty = [name for name, files in found.items() if not any(map(_is_picture, files))]
    if len(empty) == len(found):
        others = _others([file for files in found.values() for file in files])
        raise ValueError(f"{path} has no folders with pictures ({endings}){others}: give one folder for each class.")
    if unknown := sorted(set(found) - set(empty) - set(classes)):
        raise ValueError(f"{path} has a folder {unknown[0]!r}, which is no class; there are {', '.join(classes)}.")
    if lacking := next((name for name in empty if trained_on or (found[name] and name in classes)), None):
        raise ValueError(
            f"{path / lacking} has no pictures ({endings}){_others(found[lacking])}: convert them, or take the folder "
            "away if it is no class."
        )
    if len(classes) < 2:
        raise ValueError(f"{path} has one class, {classes[0]!r}: give one folder for each of two or more.")


def _others(files: Sequence[Path]) -> str:
    """Says which files there are that are not read; "" of none."""
    names = ", ".join(file.name for file in files[:3]) + (", ..." if len(files) > 3 else "")
    return f", but {names}" if files else ""


def _hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name in _OF_SYSTEMS


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_ENDINGS
