"""MNIST and its descendants from IDX files: the names they go by, what is published differently, and what lies."""

import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from localgrad.data import SPLITS, get
from localgrad.data.idx import read

from .test_datasets import idx_bytes

NAMES = {  # of the images and labels, and what the names of the two splits begin with
    "mnist": ("images-idx3-ubyte", "labels-idx1-ubyte", "train", "t10k"),
    "kmnist": ("images.idx3-ubyte", "labels.idx1-ubyte", "train", "t10k"),
    "fashion_mnist": ("images.idx3-ubyte", "labels-idx1-ubyte", "train", "test"),
    "emnist/balanced": ("images-idx3-ubyte", "labels-idx1-ubyte", "emnist-balanced-train", "emnist-balanced-test"),
    "emnist/byclass": ("images-idx3-ubyte", "labels-idx1-ubyte", "emnist-byclass-train", "emnist-byclass-test"),
    "emnist/bymerge": ("images-idx3-ubyte", "labels-idx1-ubyte", "emnist-bymerge-train", "emnist-bymerge-test"),
    "emnist/digits": ("images-idx3-ubyte", "labels-idx1-ubyte", "emnist-digits-train", "emnist-digits-test"),
    "emnist/letters": ("images-idx3-ubyte", "labels-idx1-ubyte", "emnist-letters-train", "emnist-letters-test"),
    "emnist/mnist": ("images-idx3-ubyte", "labels-idx1-ubyte", "emnist-mnist-train", "emnist-mnist-test"),
}
CLASSES = {"emnist/balanced": 47, "emnist/byclass": 62, "emnist/bymerge": 47, "emnist/letters": 26}


def write(folder: Path, name: str, *, zipped: bool = True, within: bool = False) -> dict[str, np.ndarray]:
    """The four files of a set, as it is published: 80 and 70 pictures whose labels go round."""
    rng, classes = np.random.default_rng(0), CLASSES.get(name, 10)
    images, labels, *splits = NAMES[name]
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for split, prefix, count in zip(("train", "test"), splits, (80, 70), strict=True):
        found[split] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        numbers = (np.arange(count) % classes + (name == "emnist/letters")).astype(np.uint8)
        for stem, array in ((f"{prefix}-{images}", found[split]), (f"{prefix}-{labels}", numbers)):
            if within:  # as some archives unpack: a folder of the file's name
                (folder / stem).mkdir()
            path = folder / stem / stem if within else folder / (f"{stem}.gz" if zipped else stem)
            path.write_bytes(gzip.compress(idx_bytes(array), 1) if zipped and not within else idx_bytes(array))
    return found


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_set_is_read_from_its_files(name: str, zipped: bool, tmp_path: Path) -> None:
    pictures, classes = write(tmp_path, name, zipped=zipped), CLASSES.get(name, 10)
    train, validation, test = (get(name, split, data_dir=tmp_path) for split in SPLITS)
    assert {made.name for made in (train, validation, test)} == {name} and test.classes == classes
    for found, published in (
        (np.concatenate([train.inputs, validation.inputs]), pictures["train"]),
        (test.inputs, pictures["test"]),
    ):
        upright = published.swapaxes(1, 2) if name.startswith("emnist") else published
        np.testing.assert_array_equal(found[..., 0], upright)
    assert len(validation.labels) == 8
    np.testing.assert_array_equal(test.labels, np.arange(70) % classes)
    assert test.labels.dtype == np.int32 and test.inputs.dtype == np.uint8 and test.inputs.flags.c_contiguous


@pytest.mark.parametrize(
    ("name", "below"),
    [("mnist", "MNIST/raw"), ("mnist", "mnist"), ("kmnist", "KMNIST/raw"), ("fashion_mnist", "FashionMNIST/raw"),
     ("emnist/letters", "EMNIST/raw"), ("emnist/digits", "gzip"), ("emnist/digits", "emnist")],
)  # fmt: skip
def test_the_usual_folders_are_looked_into(name: str, below: str, tmp_path: Path) -> None:
    write(tmp_path / below, name)
    assert len(get(name, "test", data_dir=tmp_path).labels) == 70


def test_a_folder_by_the_name_of_the_file(tmp_path: Path) -> None:
    write(tmp_path, "mnist", within=True)
    assert len(get("mnist", "test", data_dir=tmp_path).labels) == 70


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "sets", "mnist")
    assert len(get("mnist", "test", data_dir="~/sets").labels) == 70
    monkeypatch.setenv("TFDS_DATA_DIR", "~/sets")
    (tmp_path / "sets").rename(tmp_path / "mnist")
    (tmp_path / "sets").mkdir()
    (tmp_path / "mnist").rename(tmp_path / "sets" / "mnist")
    assert len(get("mnist", "test").labels) == 70
    with pytest.raises(ValueError, match="~nobody_of_that_name/x: .*Write the whole path"):
        get("mnist", "test", data_dir="~nobody_of_that_name/x")


@pytest.mark.parametrize("name", ["mnist", "kmnist", "emnist/letters"])
def test_a_set_that_is_not_there_says_how_to_get_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        get(name, "train", data_dir=tmp_path)
    message = str(error.value)
    assert f"no {name} in {tmp_path}" in message and f"localgrad data prepare {name} --data_dir={tmp_path}" in message
    assert "apt-get" not in message and "\n" not in message


def test_letters_that_begin_at_nought_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "emnist/letters")
    path = tmp_path / "emnist-letters-test-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros(70, np.uint8))))
    with pytest.raises(ValueError, match="labels begin at 0; expected 1 to 26"):
        get("emnist/letters", "test", data_dir=tmp_path)


# Headers that lie


def header(*sizes: int) -> bytes:
    return bytes([0, 0, 8, len(sizes)]) + b"".join(size.to_bytes(4, "big") for size in sizes)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (header(2**32 - 1, 28, 28) + bytes(784), "cut short, 784 bytes of data; expected 3367254359280"),
        (header(2**32 - 1, 2**32 - 1, 2**32 - 1) + bytes(9), "cut short, 9 bytes of data"),
        (header(1, 28, 28) + bytes(785), "too long, 785 bytes of data; expected 784"),
        (header(1, 28, 28) + bytes(64 << 20), "too long, 785 bytes of data; expected 784"),
        (header(0, 28, 28) + bytes(1), "too long, 1 bytes of data; expected 0"),
    ],
)
def test_no_more_is_read_than_the_header_says(content: bytes, says: str, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / ("images.gz" if zipped else "images")
    path.write_bytes(gzip.compress(content, 1) if zipped else content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=f"{path}: {says}"):
        read(path, dims=3)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.unlink(), "is not there"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read .Is a directory"),
    ],
)
def test_what_is_no_file_is_named(damage: Callable[[Path], object], says: str, tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(b"")
    damage(path)
    with pytest.raises((ValueError, FileNotFoundError), match=f"{path}.*{says}"):
        read(path, dims=3)
