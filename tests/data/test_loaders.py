"""Loaders of packages that people use, where those are installed: the same examples as the arrays they were made of."""

import numpy as np
import pytest

import localgrad as lg
from localgrad.data.given import as_split
from localgrad.data.streams import Stream

SHAPE = (4, 4, 1)
RNG = np.random.default_rng(0)
X, Y = RNG.integers(0, 256, (50, *SHAPE)).astype(np.uint8), RNG.integers(0, 3, 50)


def split(given, **more):
    return as_split(given, "train", **{"shape": SHAPE, "dtype": np.float32, "task": lg.classification(3), **more})


def passes(given, **more):
    """What two passes over a loader give."""
    found = split(given, **more)
    assert isinstance(found, Stream)
    for _ in range(2):
        xs, ys = zip(*found.chunks(16), strict=True)
        yield np.concatenate(xs), np.concatenate(ys)


def check(given, **more):
    for x, y in passes(given, **more):
        assert x.dtype == np.uint8
        np.testing.assert_array_equal(x, X)
        np.testing.assert_array_equal(y, Y)


def test_tensorflow():
    tf = pytest.importorskip("tensorflow")
    pairs = tf.data.Dataset.from_tensor_slices((X, Y))
    check(pairs)
    check(pairs.batch(7).prefetch(2))
    check(tf.data.Dataset.from_tensor_slices({"image": X, "label": Y, "id": np.arange(50)}).batch(20))
    (x, _), (again, _) = passes(pairs.shuffle(50, seed=1).batch(9))
    assert not np.array_equal(x, again) and np.array_equal(np.sort(x, axis=0), np.sort(again, axis=0))
    with pytest.raises(ValueError, match=r"without an end, and an epoch is one pass: leave out its repeat\(\)"):
        split(pairs.repeat())


def test_hugging_face():
    datasets = pytest.importorskip("datasets")
    plain = datasets.Dataset.from_dict({"x": X.tolist(), "y": Y, "id": np.arange(50)})
    for x, y in passes(plain):
        np.testing.assert_array_equal(x, X)
        np.testing.assert_array_equal(y, Y)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])})
    pictures = datasets.Dataset.from_dict({"image": [x[..., 0] for x in X], "label": Y}, features=features)
    check(pictures)
    check(pictures.with_format("numpy"))
    check(pictures.with_format("torch"))
    check(pictures.to_iterable_dataset())
    check(pictures.rename_columns({"image": "pixels", "label": "kind"}), fields=("pixels", "kind"))
    with pytest.raises(ValueError, match="train is a DatasetDict of the splits train, test: give one of them, such as"):
        split(datasets.DatasetDict(train=pictures, test=pictures))


def test_grain():
    grain = pytest.importorskip("grain")
    rows = [{"image": x, "label": y} for x, y in zip(X, Y, strict=True)]
    source = grain.MapDataset.source(rows)
    check(source)
    check(source.batch(8, drop_remainder=False))
    check(source.to_iter_dataset())
    (x, _), _ = passes(source.shuffle(seed=1).batch(8, drop_remainder=False))
    assert not np.array_equal(x, X) and np.array_equal(np.sort(x, axis=0), np.sort(X, axis=0))
    sampler = grain.samplers.IndexSampler(50, grain.sharding.NoSharding(), False, num_epochs=1, seed=0)
    check(grain.DataLoader(data_source=rows, sampler=sampler, operations=[], worker_count=0))
    with pytest.raises(ValueError, match="without an end, and an epoch is one pass"):
        split(source.repeat())


def test_torch():
    torch = pytest.importorskip("torch")
    tensors = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    check(torch.utils.data.DataLoader(tensors, batch_size=7))
    check(torch.utils.data.DataLoader([{"image": x, "label": int(y)} for x, y in zip(X, Y, strict=True)], batch_size=9))
    wide = torch.zeros((50, 3, 8, 8))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(wide, torch.from_numpy(Y)), batch_size=7)
    with pytest.raises(ValueError, match=r"its inputs are \(7, 3, 8, 8\); .* Its channels come first, as PyTorch has"):
        next(split(loader, shape=(8, 8, 3)).chunks(7))
    with pytest.raises(ValueError, match=r"takes \(8, 8, 3\)\. Its channels come first"):
        split((wide.numpy(), Y), shape=(8, 8, 3))
