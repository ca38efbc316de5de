"""Inputs as they come from outside: texts in any container, numbers of any type, and what is refused of them."""

import jax.numpy as jnp
import numpy as np
import pytest

from localgrad.prediction import About
from localgrad.prediction.raw import raw_inputs

WORDS = ("[PAD]", "[UNK]", "good", "film")
TEXTS = About((3,), "int32", "int32", "classification", 2, "texts", words=WORDS)


class Column:
    """What this library sees of a column of a data frame."""

    def __init__(self, values):
        self.values = np.empty(len(values), object)
        self.values[:] = values

    def __array__(self, dtype=None, copy=None):
        return self.values


def table(dtype, shape=(2,)):
    return About(shape, dtype, "float32", "classification", 2, "rows")


@pytest.mark.parametrize("kind", [list, tuple, np.array, lambda texts: np.array(texts, object), Column])
def test_texts_come_in_any_container(kind):
    assert raw_inputs(kind(["good film", "Film"]), TEXTS).tolist() == [[2, 3, 0], [3, 0, 0]]


def test_one_text_and_numbers_of_words():
    for one in ("good", np.array("good"), np.str_("good")):
        assert raw_inputs(one, TEXTS).tolist() == [[2, 0, 0]]
    for numbers in ([[2, 3, 0]], np.array([[2, 3, 0]]), jnp.array([[2, 3, 0]]), (2, 3, 0)):
        assert raw_inputs(numbers, TEXTS).tolist() == [[2, 3, 0]]


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ([], "inputs are empty: give a text, or a list of at least one"),
        (np.array([], dtype=str), "inputs are empty"),
        (["good", None], r"inputs\[1\] is None; expected a text, as others are"),
        (Column(["good", float("nan")]), r"inputs\[1\] is nan; expected a text"),
        (np.array([["good"], ["film"]]), r"inputs are texts \(2, 1\); this network takes a list of texts"),
        ([b"good"], "inputs are .S4, not real numbers"),
        (3, r"inputs are \(\); this network takes \(N, 3\)"),
        ([[2, 4, 0]], "the numbers of words are 0 to 3"),
    ],
)
def test_what_is_no_list_of_texts(inputs, says):
    with pytest.raises(ValueError, match=says):
        raw_inputs(inputs, TEXTS)


@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused_wherever_they_are(as_array, value):
    with pytest.raises(ValueError, match=r"inputs hold (nan|inf) at \[1, 0\]"):
        raw_inputs(as_array(np.array([[0, 1], [value, 1]], np.float32)), table("float32"))


@pytest.mark.parametrize(
    ("inputs", "dtype", "says"),
    [
        (np.array([[0.5, 1]]), "bool", "run from 0.5 to 1.0, .* trained on bool, which holds 0 and 1 alone"),
        (np.array([[0, 0.5], [1, 1]]), "bool", "which holds 0 and 1 alone"),
        (np.array([[0, 2]]), "bool", "inputs run from 0 to 2, and the network is trained on bool"),
        (np.array([[0, 1e5]]), "float16", "to 100000.0, .* trained on float16, which holds -65504.0 to 65504.0"),
        (np.array([[0, -70_000]]), "float16", "inputs run from -70000 to 0, and the network is trained on float16"),
        (np.array([[0, 300]]), "uint8", "trained on uint8, which holds 0 to 255"),
        (np.array([[-1, 0]]), "uint16", "inputs run from -1 to 0, and the network is trained on uint16"),
        (np.array([[0, 1.0]]), "int32", "give them as whole numbers"),
    ],
)
def test_numbers_beyond_the_type_of_training_are_refused(inputs, dtype, says):
    for given in (inputs, jnp.asarray(inputs)):
        with pytest.raises(ValueError, match=says):
            raw_inputs(given, table(dtype))


@pytest.mark.parametrize(
    ("inputs", "dtype"),
    [
        (np.array([[0.0, 1.0]]), "bool"),
        (np.array([[0, 1]], np.uint8), "bool"),
        (np.array([[True, False]]), "float32"),
        (np.array([[0.5, 65504.0]]), "float16"),
        (np.array([[0.5, 3.0e38]]), "bfloat16"),
        (np.array([[0, 255]]), "uint8"),
        (np.array([[0, 255]], np.uint8), "int32"),
        (jnp.array([[0.5, 2.0]], jnp.bfloat16), "float32"),
    ],
)
def test_numbers_that_the_type_of_training_holds(inputs, dtype):
    found = raw_inputs(inputs, table(dtype))
    assert found.dtype == jnp.dtype(dtype)
    np.testing.assert_array_equal(found, np.asarray(inputs).astype(jnp.dtype(dtype)))


@pytest.mark.parametrize(
    ("inputs", "shape", "says"),
    [
        ([], (2,), r"inputs are \(0,\); this network takes \(N, 2\)"),
        (3.0, (2,), r"inputs are \(\); this network takes \(N, 2\)"),
        ([], (1,), r"inputs are \(0, 1\)"),
        ([], (4, 4, 1), r"inputs are \(0,\)"),
        (3.0, (4, 4, 1), r"inputs are \(\)"),
        ("good", (2,), "inputs are <U4, not real numbers"),
        (["good"], (2,), "inputs are <U4, not real numbers"),
        (None, (2,), "inputs are object, not real numbers"),
    ],
)
def test_shapes_that_are_none(inputs, shape, says):
    with pytest.raises(ValueError, match=says):
        raw_inputs(inputs, table("float32", shape))


def test_one_number_is_an_example_of_one_number():
    assert raw_inputs(3.0, table("float32", (1,))).tolist() == [[3]]
    assert raw_inputs([3.0, 4.0], table("float32", (1,))).tolist() == [[3], [4]]
