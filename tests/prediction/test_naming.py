"""What outputs are called, and numbers that come back as they were."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from localgrad.prediction.naming import as_text, check_label_names, class_names, plain_number


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float32, np.float64])
def test_the_shortest_text_of_a_number_gives_it_back(dtype):
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=500) * 10.0 ** rng.integers(-4, 5, 500)
    numbers = np.array([0.1, 1234567, 16777216, 1e-4, -0.0, *drawn])
    for number in numbers[abs(numbers) < float(jnp.finfo(dtype).max)].astype(dtype):
        plain = plain_number(number)
        assert np.array(float(as_text(plain))).astype(dtype) == number
        assert np.array(json.loads(json.dumps(plain))).astype(dtype) == number
    assert as_text(plain_number(dtype(0.5))) == "0.5" and as_text(plain_number(dtype(4))) == "4"


def test_large_numbers_keep_all_digits():
    assert as_text(plain_number(np.float32(1234567))) == "1234567"
    assert as_text(plain_number(np.float32(0.1))) == "0.1"
    assert as_text(plain_number(np.int64(2**53 + 1))) == "9007199254740993"


def test_a_class_without_a_name_is_no_other_class():
    assert class_names(("1", "2"), 3) == ("1", "2", "class 2")
    assert class_names(("a", "b", "c"), 2) == ("a", "b")
    assert class_names(None, 2) == ("0", "1")


@pytest.mark.parametrize(
    ("names", "task", "outputs", "says"),
    [
        (("a", "b"), "multilabel", 3, "label_names has 2 names, and the network 3 labels: give one for each"),
        (("a", "b", "c"), "multilabel", 2, "label_names has 3 names, and the network 2 labels"),
        (("a", "b", "c"), "classification", 2, "label_names has 3 names, and the network 2 classes"),
        (("a", "a"), "multilabel", 2, "two labels 'a': give each a name of its own"),
    ],
)
def test_names_that_are_not_those_of_the_outputs(names, task, outputs, says):
    with pytest.raises(ValueError, match=says):
        check_label_names(names, task, outputs)


def test_names_that_fit():
    check_label_names(None, "multilabel", 3)
    check_label_names(("a", "b"), "multilabel", 2)
    check_label_names(("a",), "classification", 2)
    check_label_names(("a", "b", "c"), "regression", 1)  # where they are not used
