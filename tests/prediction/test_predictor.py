"""What a network says: scores that are finite, names of classes and labels, and numbers as they are."""

import jax.numpy as jnp
import numpy as np
import pytest

import localgrad as lg
from localgrad.prediction import About, Predictor, about_of

from ..training import own


def network(task="classification", outputs=2, names=None, run=lambda x, exit: x):
    """One whose scores are its inputs."""
    about = About((outputs,), "float32", "float32", task, outputs, "rows", label_names=names)
    return Predictor(about, (1, 2), run)


def test_scores_that_are_not_finite_are_no_prediction():
    squared = network(run=lambda x, exit: x * x)
    inputs = np.array([[1, 2], [3e38, 1], [3, 4], [-3e38, 1]], np.float32)
    says = r"scores of inputs\[1\], inputs\[3\] are not finite. Where inputs are far larger"
    for call in (squared, lambda x: squared(x, exit=1), squared.anytime, lambda x: squared.anytime(x, 1.1)):
        with pytest.raises(ValueError, match=says):
            call(inputs)
    with pytest.raises(ValueError, match="scores of inputs.0., .* inputs.4. and 3 more are not finite"):
        squared(np.full((8, 2), 3e38, np.float32))
    assert squared(inputs[::2]).values.tolist() == [1, 1]


def test_the_inputs_of_later_exits_keep_their_numbers():
    """The first two leave at the first exit; the third is the one whose scores of the second are not finite."""
    later = network(run=lambda x, exit: x if exit == 1 else x * jnp.nan)
    with pytest.raises(ValueError, match=r"scores of inputs\[2\] are not finite"):
        later.anytime(np.array([[9, 0], [0, 9], [1, 1]], np.float32), 0.9)


@pytest.mark.parametrize("task", ["regression", "multilabel"])
def test_no_task_has_numbers_that_are_none(task):
    with pytest.raises(ValueError, match=r"scores of inputs\[0\] are not finite"):
        network(task, run=lambda x, exit: x / 0)(np.ones((1, 2), np.float32))


def test_inputs_on_the_device_are_looked_at():
    with pytest.raises(ValueError, match=r"inputs hold nan at \[0, 0\]"):
        network()(jnp.array([[jnp.nan, 1.0]]))


def test_classes_have_their_names_or_numbers():
    scores = np.eye(3, dtype=np.float32)
    assert network(outputs=3, names=("a", "b", "c"))(scores).names == ["a", "b", "c"]
    assert network(outputs=3, names=("a", "b"))(scores).names == ["a", "b", "class 2"]
    bare = network(outputs=3)(scores)
    assert bare.names == ["0", "1", "2"] and bare.plain_values == [0, 1, 2]


def test_a_regression_keeps_all_digits():
    wide = np.array([[1234567, 0.1], [16777216, -2]], np.float32)
    found = network("regression")(wide)
    assert found.names == ["1234567 0.1", "16777216 -2"] and found.plain_values == [[1234567, 0.1], [16777216, -2]]
    one = network("regression", 1)(wide[:, :1])
    assert one.names == ["1234567", "16777216"] and one.plain_values == [1234567, 16777216]


def test_labels_are_told_by_the_names_of_those_that_are_on():
    scores = np.array([[1, -1, 2], [-1, -1, -1], [-1, 3, -1]], np.float32)
    found = network("multilabel", 3, ("sea", "sun", "dog"))(scores)
    assert found.names == ["sea, dog", "(none)", "sun"] and found.plain_values == [["sea", "dog"], [], ["sun"]]
    bare = network("multilabel", 3)(scores)
    assert bare.names == ["1 0 1", "0 0 0", "0 1 0"] and bare.plain_values == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    with pytest.raises(ValueError, match="label_names has 2 names, and the network 3 labels"):
        network("multilabel", 3, ("sea", "sun"))


def test_tokens_are_told_by_their_names():
    about = About((2,), "int32", "int32", "tokens", 3, "texts")
    run = lambda x, exit: jnp.eye(3)[x]
    assert Predictor(about, (1,), run)(np.array([[0, 2]])).plain_values == [[0, 2]]
    named = Predictor(about._replace(label_names=("the", "a", "cat")), (1,), run)
    assert named(np.array([[0, 2], [1, 2]])).names == ["the, cat", "a, cat"]


def test_names_are_looked_at_before_anything_is_trained():
    x, y = own.pictures(16)
    train = lg.data.Dataset("own", x, np.eye(3, dtype=np.int32)[y], task=lg.multilabel(3), targets=("u", "v", "w"))
    model = own.model(lg.multilabel(3))
    assert about_of(model, train, None).label_names == ("u", "v", "w")  # columns of a data frame
    assert about_of(model, train._replace(label_names=("a", "b", "c")), None).label_names == ("a", "b", "c")
    with pytest.raises(ValueError, match="label_names has 2 names, and the network 3 labels"):
        lg.fit(model, train._replace(label_names=("a", "b")), epochs=1, log=lambda line: None)
