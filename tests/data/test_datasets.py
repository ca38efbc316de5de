"""The door, the splits, and the two sets with a reader of their own."""

import gzip
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from localgrad.data import (
    DATASETS,
    SPLITS,
    Dataset,
    first,
    get,
    names,
    pixel_stats,
    register_dataset,
    with_label_noise,
)
from localgrad.data.dataset import Part, part
from localgrad.data.fashion_mnist import DEBIAN
from localgrad.data.look import checked
from localgrad.data.text import Corpus

# Splits


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"train": 60_000, "test": 9}, [("train", 0, 55_000), ("train", 55_000, 60_000), ("test", 0, 9)]),
        ({"train": 1_000, "test": 9}, [("train", 0, 900), ("train", 900, 1_000), ("test", 0, 9)]),
        ({"train": 50_001, "test": 9}, [("train", 0, 45_001), ("train", 45_001, 50_001), ("test", 0, 9)]),
        ({"train": 7, "valid": 3, "test": 2}, [("train", 0, 7), ("valid", 0, 3), ("test", 0, 2)]),
        ({"train": 7, "val": 3, "test": 2}, [("train", 0, 7), ("val", 0, 3), ("test", 0, 2)]),
        ({"train": 100, "validation": 30}, [("train", 0, 90), ("train", 90, 100), ("validation", 0, 30)]),
        ({"train": 100}, [("train", 0, 80), ("train", 80, 90), ("train", 90, 100)]),
        ({"train": 3}, [("train", 0, 1), ("train", 1, 2), ("train", 2, 3)]),
    ],
)
def test_what_is_not_published_is_held_out(sizes: dict[str, int], expected: list[tuple[str, int, int]]) -> None:
    assert [part("some", split, sizes) for split in SPLITS] == [Part(*row) for row in expected]


def test_splits_that_cannot_be_had() -> None:
    with pytest.raises(ValueError, match=r"some has no split named 'train', only \['test', 'unlabelled'\]"):
        part("some", "train", {"unlabelled": 3, "test": 4})
    with pytest.raises(ValueError, match=r"some has 2 training examples .* too few to hold out"):
        part("some", "test", {"train": 2})


# Checks


def test_arrays_that_are_no_dataset() -> None:
    images, labels = np.zeros((3, 2, 2, 1), np.uint8), np.array([0, 1, 2])
    assert checked("some", images, labels, 3, where="here").labels.dtype == np.int32
    with pytest.raises(ValueError, match=r"here: images are float32 \(3, 2, 2, 1\); expected uint8 \(N, H, W, C\)"):
        checked("some", images.astype(np.float32), labels, 3, where="here")
    with pytest.raises(ValueError, match=r"images are uint8 \(3, 2, 2\); expected uint8"):
        checked("some", images[..., 0], labels, 3, where="here")
    with pytest.raises(ValueError, match=r"images are uint8 \(0, 2, 2, 1\)"):
        checked("some", images[:0], labels[:0], 3, where="here")
    with pytest.raises(ValueError, match="here: found 2 labels for 3 images; expected one each"):
        checked("some", images, labels[:2], 3, where="here")
    with pytest.raises(ValueError, match="here: labels run from 0 to 2; expected 0 to 1"):
        checked("some", images, labels, 2, where="here")
    with pytest.raises(ValueError, match=r"labels run from -1 to 1; expected 0 to 2\. A label of -1 marks a split"):
        checked("some", images, labels - 1, 3, where="here")


# Statistics


def test_pixel_stats_are_those_of_the_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 5, 4, 3), dtype=np.uint8)
    images[..., 2] = 7
    mean, std = pixel_stats(Dataset("some", images, np.zeros(50, np.int32), 1))
    assert mean.dtype == std.dtype == np.float64
    pixels = images.reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(mean, pixels.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(std, [*pixels.std(axis=0)[:2], 1.0], rtol=1e-13)


# The door


def test_names_are_embedded() -> None:
    images = ("digits", "mnist", "fashion_mnist", "kmnist", "emnist")
    texts, others = ("wordnet_gloss", "movie_snippets", "dbpedia"), ("sine", "diabetes", "topics", "bytes")
    assert names() == (*images, *texts, *others)


@pytest.mark.parametrize("split", ["val", "Train", ""])
def test_an_unknown_split_lists_the_splits(split: str) -> None:
    with pytest.raises(
        ValueError, match=rf"unknown split '{split}'; expected one of \['train', 'validation', 'test'\]"
    ):
        get("digits", split)


def test_importing_is_cheap() -> None:
    heavy = ["tensorflow", "tensorflow_datasets", "sklearn", "matplotlib", "orbax"]
    code = f"import sys, localgrad.data; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# Digits


def test_digits_are_split_by_class_and_whole() -> None:
    from sklearn.datasets import load_digits

    splits = [get("digits", split) for split in SPLITS]
    assert [len(split.inputs) for split in splits] == [1197, 300, 300]
    for split in splits:
        assert split.inputs.dtype == np.uint8 and split.inputs.shape[1:] == (8, 8, 1) and split.classes == 10
        assert split.labels.dtype == np.int32 and split.inputs.max() == 16
        share = np.bincount(split.labels) / len(split.labels)
        np.testing.assert_allclose(share, np.bincount(load_digits().target) / 1797, atol=1 / 300)
    # Each published example is in exactly one split, with its own label.
    found = np.concatenate([np.column_stack([s.labels, s.inputs.reshape(len(s.inputs), 64)]) for s in splits])
    published = np.column_stack([load_digits().target, load_digits().data]).astype(int)
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, published.tolist()))


def test_digits_never_move() -> None:
    assert get("digits", "test").labels[:12].tolist() == [0, 8, 9, 1, 6, 3, 5, 0, 7, 2, 4, 6]
    assert get("digits", "validation").labels[:12].tolist() == [5, 4, 2, 7, 0, 9, 8, 5, 1, 6, 3, 0]


# Fashion-MNIST


def idx_bytes(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def write_fashion(folder: Path, *, zipped: bool = True, train: int = 40, test: int = 10) -> dict[str, np.ndarray]:
    """Four small files of the published names; returns what is in them."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    arrays = {}
    for prefix, count in (("train", train), ("t10k", test)):
        arrays[f"{prefix}-images-idx3-ubyte"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{prefix}-labels-idx1-ubyte"] = np.arange(count, dtype=np.uint8) % 10
    for stem, array in arrays.items():
        raw = idx_bytes(array)
        (folder / (f"{stem}.gz" if zipped else stem)).write_bytes(gzip.compress(raw) if zipped else raw)
    return arrays


@pytest.mark.parametrize("zipped", [True, False])
def test_fashion_mnist_from_files(tmp_path: Path, zipped: bool) -> None:
    arrays = write_fashion(tmp_path, zipped=zipped)
    train, validation, test = (get("fashion_mnist", split, data_dir=tmp_path) for split in SPLITS)
    assert train.inputs.shape == (36, 28, 28, 1) and train.inputs.dtype == np.uint8 and train.labels.dtype == np.int32
    np.testing.assert_array_equal(
        np.concatenate([train.inputs, validation.inputs])[..., 0], arrays["train-images-idx3-ubyte"]
    )
    np.testing.assert_array_equal(np.concatenate([train.labels, validation.labels]), arrays["train-labels-idx1-ubyte"])
    np.testing.assert_array_equal(test.inputs[..., 0], arrays["t10k-images-idx3-ubyte"])
    np.testing.assert_array_equal(test.labels, arrays["t10k-labels-idx1-ubyte"])


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_fashion_mnist_as_published() -> None:
    train, validation, test = (get("fashion_mnist", split) for split in SPLITS)
    assert [len(split.inputs) for split in (train, validation, test)] == [55_000, 5_000, 10_000]
    labels = np.concatenate([train.labels, validation.labels])
    assert np.bincount(labels).tolist() == [6000] * 10 and np.bincount(test.labels).tolist() == [1000] * 10
    mean, std = pixel_stats(train)
    # 0.2860 and 0.3530 of 255 are what is published for all 60,000.
    np.testing.assert_allclose([mean[0] / 255, std[0] / 255], [0.2860, 0.3530], atol=5e-4)


def replaced(folder: Path, stem: str, raw: bytes) -> None:
    (folder / f"{stem}.gz").write_bytes(gzip.compress(raw))


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("stem", "change", "message"),
    [
        (IMAGES, lambda raw: raw[:-1], "cut short, 31359 bytes of data; expected 31360 .*Fetch the file again"),
        (IMAGES, lambda raw: raw + b"\0", "too long, 31361 bytes of data; expected 31360"),
        (IMAGES, lambda raw: raw[:10], "cut short, 10 bytes; expected a header of 16"),
        (IMAGES, lambda raw: b"\x89PNG" + raw[4:], "magic number 0x89504e47: it is no IDX file .*expected 0x00000803"),
        (IMAGES, lambda raw: b"\0\0\x0d\x03" + raw[4:], "magic number 0x00000d03: it is no IDX file of unsigned bytes"),
        (IMAGES, lambda raw: b"", "magic number 0x: it is no IDX file .*expected 0x00000803"),
        (IMAGES, lambda raw: idx_bytes(np.zeros((40, 32, 32), np.uint8)), "its images are 32x32; expected 28x28"),
        (IMAGES, lambda raw: idx_bytes(np.zeros((39, 28, 28), np.uint8)), "found 40 labels for 39 images"),
        (LABELS, lambda raw: raw[:-1], "cut short, 39 bytes of data; expected 40"),
        (
            LABELS,
            lambda raw: idx_bytes(np.zeros((40, 28, 28), np.uint8)),
            r"it is an IDX file of images; expected 0x00000801 \(labels\).*changed names",
        ),
        (LABELS, lambda raw: raw[:-1] + b"\x0a", "labels run from 0 to 10; expected 0 to 9"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, stem: str, change: object, message: str) -> None:
    arrays = write_fashion(tmp_path)
    replaced(tmp_path, stem, change(idx_bytes(arrays[stem])))  # type: ignore[operator]
    with pytest.raises(ValueError, match=f"(?s){stem}.*{message}"):
        get("fashion_mnist", "train", data_dir=tmp_path)


@pytest.mark.parametrize(
    "damage",
    [lambda raw: raw[: len(raw) // 2], lambda raw: b"not gzip", lambda raw: raw[:40] + b"\xff" * 40 + raw[80:]],
)
def test_a_damaged_gzip_file_is_named(tmp_path: Path, damage: object) -> None:
    write_fashion(tmp_path)
    path = tmp_path / f"{IMAGES}.gz"
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(ValueError, match=f"{IMAGES}.gz: found .* bytes that do not unpack .*Fetch the file again"):
        get("fashion_mnist", "train", data_dir=tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_fashion(tmp_path)
    (tmp_path / f"{LABELS}.gz").unlink()
    with pytest.raises(FileNotFoundError, match=f"holds neither {LABELS}.gz nor {LABELS}. .*apt-get install"):
        get("fashion_mnist", "test", data_dir=tmp_path)


def test_a_missing_folder_says_how_to_get_the_set(tmp_path: Path) -> None:
    folder = tmp_path / "nowhere"
    with pytest.raises(FileNotFoundError) as error:
        get("fashion_mnist", "train", data_dir=folder)
    message = str(error.value)
    for part_of_it in (
        str(folder),
        "apt-get install dataset-fashion-mnist",
        "--data_dir",
        f"python -m localgrad data prepare fashion_mnist --data_dir={folder}",
    ):
        assert part_of_it in message


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_published_files_read_the_same_unpacked(tmp_path: Path) -> None:
    for path in DEBIAN.glob("*.gz"):
        with gzip.open(path) as packed, (tmp_path / path.stem).open("wb") as plain:
            shutil.copyfileobj(packed, plain)
    packed_set, plain_set = get("fashion_mnist", "test"), get("fashion_mnist", "test", data_dir=tmp_path)
    np.testing.assert_array_equal(packed_set.inputs, plain_set.inputs)
    np.testing.assert_array_equal(packed_set.labels, plain_set.labels)


def test_the_first_examples() -> None:
    train = get("digits", "train")
    assert first(train, None).inputs.shape == train.inputs.shape
    np.testing.assert_array_equal(first(train, 7).labels, train.labels[:7])


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_label_noise(share: float) -> None:
    """A tenth of the labels that are drawn anew stay as they were; it is the same noise every time."""
    train = get("digits", "train")
    noisy = with_label_noise(train, share)
    assert noisy.labels.dtype == train.labels.dtype
    assert abs(np.mean(noisy.labels != train.labels) - 0.9 * share) < 0.05
    np.testing.assert_array_equal(with_label_noise(train, share).labels, noisy.labels)
    assert noisy.inputs is train.inputs


def test_texts_of_a_stranger_are_read_through_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(DATASETS, "haiku", raising=False)
    texts, labels = ["an old silent pond", "a frog jumps in", "splash", "silence again"], [0, 1, 1, 0]

    def read(config: str | None, data_dir: object) -> tuple[Corpus, str]:
        kept = texts if config is None else [text.upper() for text in texts]
        return Corpus(dict.fromkeys(SPLITS, (kept, labels)), 2), "memory"

    register_dataset("haiku", texts=read)
    try:
        found = get("haiku", "train", max_length=3)
        assert found.inputs.shape == (4, 3) and found.labels.tolist() == labels and found.classes == 2
        assert get("haiku/loud", "test").words == get("haiku", "test").words  # one tokenizer, in lower case
        assert names()[-1] == "haiku"
    finally:
        del DATASETS["haiku"]
