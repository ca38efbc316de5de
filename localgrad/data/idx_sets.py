"""MNIST and its descendants, from their IDX files or from tensorflow-datasets: one reader, one row a set.

Sources: LeCun et al., Gradient-based learning applied to document recognition, 1998 (MNIST); Xiao et al.,
https://arxiv.org/abs/1708.07747 (Fashion-MNIST); Clanuwat et al., https://arxiv.org/abs/1812.01718 (KMNIST);
Cohen et al., https://arxiv.org/abs/1702.05373 (EMNIST)
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from localgrad.data import fashion_mnist, idx, tfds, tfds_folders
from localgrad.data.dataset import Dataset, part
from localgrad.data.look import checked

SHAPE = (28, 28)


class IdxSet(NamedTuple):
    """A set of 28x28 grey pictures in four IDX files.

    Attributes:
      classes: number of classes.
      prefixes: for each published split, what the names of its files may begin with.
      folders: where the files may be, below the folder that is given.
      installed: where a package puts them.
      apt: the Debian package that does.
      first_label: number of the first class in the files.
      transposed: whether rows and columns of the published pictures have changed places.
    """

    classes: int = 10
    prefixes: Mapping[str, tuple[str, ...]] = {"train": ("train",), "test": ("t10k", "test")}
    folders: tuple[str, ...] = ()
    installed: Path | None = None
    apt: str | None = None
    first_label: int = 0
    transposed: bool = False


def _emnist(variant: str, classes: int, first_label: int = 0) -> IdxSet:
    prefixes = {split: (f"emnist-{variant}-{split}",) for split in ("train", "test")}
    return IdxSet(classes, prefixes, ("EMNIST/raw", "gzip"), None, None, first_label, True)


SETS = {
    "mnist": IdxSet(folders=("MNIST/raw",)),
    "kmnist": IdxSet(folders=("KMNIST/raw",)),
    "fashion_mnist": IdxSet(folders=("FashionMNIST/raw",), installed=fashion_mnist.DEBIAN, apt="dataset-fashion-mnist"),
    "emnist/balanced": _emnist("balanced", 47),
    "emnist/byclass": _emnist("byclass", 62),
    "emnist/bymerge": _emnist("bymerge", 47),
    "emnist/digits": _emnist("digits", 10),
    "emnist/letters": _emnist("letters", 26, first_label=1),
    "emnist/mnist": _emnist("mnist", 10),
}


def load(name: str, split: str, data_dir: str | Path | None) -> Dataset:
    """Reads a split; validation is the last 5,000 training examples, or a tenth where that is fewer.

    Pictures of EMNIST stand upright, and the classes of its letters are 0 .. 25, from either kind of file.

    Args:
      name: one of `SETS`; with a version, `mnist:3.0.1`, it is read from tensorflow-datasets.
      split: `train`, `validation` or `test`.
      data_dir: a folder with the four IDX files (plain or `.gz`, by any of their usual names), one with such a folder
        (`mnist`, or torchvision's `MNIST/raw`), or one with the set as tensorflow-datasets prepares it.  None looks
        where a package puts the files, then where tensorflow-datasets does.

    Returns:
      Images uint8 `(N, 28, 28, 1)`.

    Raises:
      FileNotFoundError: it is in none of these places.
      ValueError: a file is damaged, or is not what its name says.
    """
    plain = name.partition(":")[0]
    row = SETS[plain]
    places = list(_places(plain, row, data_dir)) if plain == name else []
    for folder in places:
        if any(_find(folder, row, published, kind) for published in row.prefixes for kind in idx.KINDS):
            return _upright(row, _from_idx(plain, row, folder, split))
    if plain != name or tfds_folders.find(name, data_dir) is not None:
        return _upright(row, tfds.load(name, split, data_dir))
    raise FileNotFoundError(f"no {plain} in {' or '.join(map(str, places))}. {_remedy(plain, row, data_dir)}")


def _places(name: str, row: IdxSet, data_dir: str | Path | None) -> Iterator[Path]:
    folder = tfds_folders.root(data_dir)
    if data_dir is not None:
        yield folder
    elif row.installed is not None:
        yield row.installed
    yield from (folder / below for below in (name, name.partition("/")[0], *row.folders))


def _from_idx(name: str, row: IdxSet, folder: Path, split: str) -> Dataset:
    files = {published: [_file(name, row, folder, published, kind) for kind in (3, 1)] for published in row.prefixes}
    labels = {published: idx.read_labels(path) for published, (_, path) in files.items()}
    chosen = part(name, split, {published: len(values) for published, values in labels.items()})
    images_file, labels_file = files[chosen.published]
    own = labels[chosen.published].astype(np.int64)
    images = idx.read_images(images_file, SHAPE)[..., None]
    return _part(
        checked(name, images, own, row.classes + row.first_label, where=f"{images_file} and {labels_file.name}"),
        chosen.start,
        chosen.stop,
    )


def _part(dataset: Dataset, start: int, stop: int) -> Dataset:
    return dataset._replace(inputs=dataset.inputs[start:stop], labels=dataset.labels[start:stop])


def _upright(row: IdxSet, dataset: Dataset) -> Dataset:
    """A set as published, with its pictures upright and its classes counted from 0."""
    if row.first_label and dataset.labels.min() < row.first_label:
        raise ValueError(
            f"{dataset.name}: labels begin at {dataset.labels.min()}; expected {row.first_label} to "
            f"{row.classes + row.first_label - 1} as published: fetch the set again"
        )
    if dataset.labels.max() >= row.classes + row.first_label:
        raise ValueError(
            f"{dataset.name}: labels run to {dataset.labels.max()}; expected {row.classes + row.first_label - 1} at "
            "most as published: fetch the set again"
        )
    inputs = np.ascontiguousarray(dataset.inputs.swapaxes(1, 2)) if row.transposed else dataset.inputs
    return dataset._replace(inputs=inputs, labels=dataset.labels - np.int32(row.first_label), classes=row.classes)


def _file(name: str, row: IdxSet, folder: Path, published: str, kind: int) -> Path:
    path = _find(folder, row, published, kind)
    if path is None:
        stem = f"{row.prefixes[published][0]}-{idx.KINDS[kind]}-idx{kind}-ubyte"
        raise FileNotFoundError(
            f"{folder} holds neither {stem}.gz nor {stem}, nor another of its names. {_remedy(name, row, folder)}"
        )
    return path


def _find(folder: Path, row: IdxSet, published: str, kind: int) -> Path | None:
    """The file of images (3) or labels (1) of a published split, by any of its usual names."""
    for prefix in row.prefixes[published]:
        for joint in "-.":
            stem = f"{prefix}-{idx.KINDS[kind]}{joint}idx{kind}-ubyte"
            for path in (folder / f"{stem}.gz", folder / stem, folder / stem / stem):
                if path.is_file():
                    return path
    return None


def _remedy(name: str, row: IdxSet, data_dir: str | Path | None) -> str:
    apt = f"`apt-get install {row.apt}`; " if row.apt else ""
    return (
        f"Do one of these: {apt}pass --data_dir with the folder of its four IDX files; or "
        f"`{tfds_folders.command(name, data_dir)}`"
    )
