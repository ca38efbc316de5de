"""What a run reads: splits of a registered set that are not alike are refused, with the name of the split."""

import dataclasses

import numpy as np
import pytest

import localgrad as lg
from localgrad.data import DATASETS, Dataset
from localgrad.training import Config
from localgrad.training.inputs import read_inputs

RNG = np.random.default_rng(0)
BYTES = Dataset("own", RNG.integers(0, 256, (64, 2), dtype=np.uint8), RNG.integers(0, 2, 64).astype(np.int32), 2)
TRAIN = BYTES._replace(label_names=("cat", "dog"), columns=("a", "b"))
CONFIG = Config(method="al", net="mlp", dataset="own", batch_size=16)


@pytest.fixture
def read():
    """Reads a registered set, of whose splits some are given and the others are those of training."""
    asked = []

    def reader(name, split, data_dir):
        asked.append(split)
        return splits.get(split, TRAIN)

    splits = {}
    lg.register_dataset("own", reader)

    def found(**given):
        splits.update(given)
        inputs = read_inputs(CONFIG)
        assert asked == ["train", "validation", "test"]  # once each
        return inputs

    yield found
    del DATASETS["own"]


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"inputs": (BYTES.inputs / 255).astype(np.float32)}, "inputs are float32, .* trained on uint8"),
        ({"label_names": ("dog", "cat")}, "its classes are dog, cat, and those of training cat, dog"),
        ({"columns": ("a", "c")}, "have the columns a, c; training has a, b"),
        ({"classes": 5}, "is for classification of 5, and training for classification of 2"),
        ({"classes": None, "task": lg.multilabel(2), "labels": np.zeros((64, 2), np.int32)}, "is for multilabel of 2"),
        ({"inputs": np.zeros((64, 3), np.uint8), "columns": None}, r"its inputs is \(3,\), and of training \(2,\)"),
    ],
)
def test_a_split_that_is_not_like_training_is_refused(split, more, says, read):
    with pytest.raises(ValueError, match=f"the {split} split of own.*{says}"):
        read(**{split: TRAIN._replace(**more)})


def test_columns_are_put_in_the_order_of_training(read):
    found = read(validation=TRAIN._replace(inputs=BYTES.inputs[:, ::-1], columns=("b", "a")))
    validation = found.splits["validation"]
    np.testing.assert_array_equal(validation.inputs, BYTES.inputs)
    assert validation.columns == ("a", "b") and validation.name == "own"


@pytest.mark.parametrize("name", ["digits", "sine", "diabetes", "topics", "bytes"])
def test_built_in_sets_are_alike(name):
    assert list(read_inputs(dataclasses.replace(CONFIG, dataset=name)).splits) == ["train", "validation", "test"]
