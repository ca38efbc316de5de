"""Sets that are computed or come with a package, and are no classification."""

import numpy as np
import pytest

from localgrad import data
from localgrad.data.dataset import Dataset
from localgrad.data.look import looked_at
from localgrad.tasks import multilabel, regression, tokens


@pytest.mark.parametrize(
    ("name", "task", "outputs", "sizes"),
    [
        ("sine", "regression", 1, (2048, 512, 512)),
        ("diabetes", "regression", 1, (352, 45, 45)),
        ("topics", "multilabel", 5, (2400, 300, 300)),
    ],
)
def test_each_split_is_as_its_task_wants_it(name, task, outputs, sizes):
    for split, size in zip(data.SPLITS, sizes, strict=True):
        found = data.get(name, split)
        assert (found.learnt.name, found.learnt.outputs) == (task, outputs)
        assert found.inputs.shape[0] == size and found.labels.shape == (size, outputs)
        assert looked_at(found).labels.dtype == found.labels.dtype  # as it is, it is sound
    again = data.get(name, "train")
    np.testing.assert_array_equal(again.inputs, data.get(name, "train").inputs)
    with pytest.raises(ValueError, match=f"{name} has one form; got {name}/other"):
        data.get(f"{name}/other", "train")


def test_a_sine_is_one():
    found = data.get("sine", "test")
    np.testing.assert_allclose(found.labels, np.sin(2 * found.inputs), atol=1e-6)


def test_bytes_are_followed_by_the_next(tmp_path):
    text = bytes(range(256)) * 20
    (tmp_path / "b.txt").write_bytes(text[1000:])
    (tmp_path / "a.md").write_bytes(text[:1000])
    splits = [data.get("bytes/16", split, data_dir=tmp_path) for split in data.SPLITS]
    pieces = 5120 // 17
    assert sum(len(found.inputs) for found in splits) == pieces and splits[0].learnt.ahead
    whole = np.concatenate([found.inputs for found in splits])
    after = np.concatenate([found.labels for found in splits])
    np.testing.assert_array_equal(whole[:, 1:], after[:, :-1])
    np.testing.assert_array_equal((whole - 1 + 1) % 256, after - 1)  # each byte of this text is followed by the next
    assert splits[0].words[66] == "byte 65"
    assert data.get("bytes", "test", data_dir=tmp_path / "b.txt").inputs.shape[1] == 64


def test_bytes_that_are_not_there_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no .txt or .md file"):
        data.get("bytes", "train", data_dir=tmp_path)
    (tmp_path / "short.txt").write_text("too little")
    with pytest.raises(ValueError, match="10 bytes make 0 sequences of 64 places; expected at least 20"):
        data.get("bytes", "train", data_dir=tmp_path)
    with pytest.raises(ValueError, match="behind the / stands a number of places of at least 2"):
        data.get("bytes/one", "train", data_dir=tmp_path)


X = np.zeros((6, 3), np.float32)


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (Dataset("a", X, np.zeros(6, np.float32), task=regression()), r"labels are \(6,\) .* wants \(6, 1\)"),
        (Dataset("a", X, np.full((6, 1), np.nan), task=regression()), r"a: labels hold nan at \[0, 0\]"),
        (Dataset("a", X, np.full((6, 2), 2), task=multilabel(2)), "labels from 2 to 2 are no targets of multilabel"),
        (Dataset("a", X, np.zeros((6, 2)), task=multilabel(2)), "labels are float32; expected whole numbers"),
        (Dataset("a", X, np.zeros((6, 3), int), task=tokens(2)), None),
        (Dataset("a", X, np.full((6, 3), 5), task=tokens(5)), "labels from 5 to 5 are no targets of tokens"),
        (Dataset("a", X, np.zeros((6, 1)), 4, task=regression()), "classes=4 beside a task of None; leave classes out"),
        (Dataset("a", X, np.zeros(6, int)), "classes=None; expected a whole number of at least 1, or task="),
    ],
)
def test_targets_that_are_none_are_refused_at_the_door(dataset, words):
    if words is None:
        assert looked_at(dataset).labels.dtype == np.int32
        return
    with pytest.raises(ValueError, match=words):
        looked_at(dataset)


def test_noise_is_put_on_classes_alone():
    with pytest.raises(ValueError, match="sine is for regression: noise is put on the labels of classes alone"):
        data.with_label_noise(data.get("sine", "test"), 0.5)


def test_targets_of_floats_come_in_the_type_of_the_inputs():
    found = data.get("diabetes", "train")
    source = data.source(found, batch_size=8, seed=0, dtype="bfloat16")
    batches = source.batches(0, 1)
    x, y = batches.fetch(batches.items[0], 0, 8)
    assert (x.dtype, y.dtype, y.shape) == ("bfloat16", "bfloat16", (8, 1))
    (*_, (x, y, mask)) = data.eval_batches(found, 100)
    assert y.shape == (100, 1) and mask.sum() == 52 and y.dtype == np.float32
