"""Two copies of a dataset that differ anywhere have different fingerprints."""

import json

import numpy as np
import pytest

from localgrad.data import fingerprint as whole
from localgrad.data import get
from localgrad.data.dataset import Dataset
from localgrad.data.fingerprint import fingerprint


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return Dataset("set", rng.integers(0, 256, (50, 3, 3, 1), np.uint8), rng.integers(0, 4, 50, np.int32), 4)


def test_a_copy_has_the_same_and_json_holds_it(images):
    ours = fingerprint(images)
    assert json.loads(json.dumps(ours)) == ours
    assert fingerprint(images._replace(inputs=images.inputs.copy(), labels=images.labels.copy())) == ours
    assert whole is fingerprint


def test_what_differs_shows(images):
    def differing(other):
        ours, theirs = fingerprint(images), fingerprint(other)
        return {name for name in ours if ours[name] != theirs[name]}

    pixel, label = images.inputs.copy(), images.labels.copy()
    pixel[49, 2, 2, 0] ^= 1
    label[7] = (label[7] + 1) % 4
    assert differing(images._replace(inputs=pixel)) == {"inputs", "sum"}
    assert differing(images._replace(labels=label)) == {"labels"}
    assert "inputs" in differing(images._replace(inputs=images.inputs[::-1])), "another order"
    assert differing(images._replace(classes=5)) == {"classes"}
    assert "shape" in differing(images._replace(inputs=images.inputs.astype(np.int32)))
    assert differing(images._replace(words=("[PAD]", "[UNK]", "a"))) == {"words"}


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_one_value_of_a_large_set_shows_though_it_is_not_in_the_sample(dtype):
    inputs = np.zeros((1_100_003, 33 // np.dtype(dtype).itemsize), dtype)  # more than the sample; not a multiple of 8
    ours = Dataset("set", inputs, np.zeros(len(inputs), np.int32), 2)
    before = fingerprint(ours)
    for row in (1, len(inputs) // 2, len(inputs) - 1):
        inputs[row, -1] ^= 1
        after = fingerprint(ours)
        assert after["sum"] != before["sum"]
        inputs[row, -1] ^= 1
    assert fingerprint(ours) == before


def test_texts_have_one():
    digits = fingerprint(get("digits", "test"))
    assert digits["words"] is None
