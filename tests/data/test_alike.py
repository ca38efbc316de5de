"""Splits of a run are alike: columns are put in one order, and what means something else is refused."""

import numpy as np
import pytest

import localgrad as lg
from localgrad.data import Dataset, alike, as_split

from ..training import own

X = np.array([[1.0, 20.0], [2.0, 10.0], [3.0, 30.0]], np.float32)
Y = np.array([0, 1, 0], np.int32)


class Frame:
    """What this library sees of a data frame."""

    def __init__(self, rows, columns):
        self.rows, self.columns, self.shape = rows, columns, rows.shape

    def __array__(self, dtype=None, copy=None):
        return self.rows

    def __iter__(self):
        return iter(self.columns)


def split(given, name="validation", like=None, task=None, **more):
    found = as_split(given, name, shape=(2,), dtype=np.float32, task=task or lg.classification(2), like=like, **more)
    return found if like is None else alike(found, like)


def csv(path, text):
    path.write_text(text)
    return path


TRAIN = split((Frame(X, ["a", "b"]), Y), "train")


def test_columns_of_a_frame_are_put_in_order():
    assert TRAIN.columns == ("a", "b")
    found = split((Frame(X[:, ::-1], ["b", "a"]), Y), like=TRAIN)
    np.testing.assert_array_equal(found.inputs, X)
    assert found.columns == ("a", "b")
    np.testing.assert_array_equal(split((X, Y), like=TRAIN).inputs, X)  # nothing is known of an array's columns


@pytest.mark.parametrize("text", ["a,b,kind\n1,20,no\n2,10,yes\n3,30,no\n", "kind,b,a\nno,20,1\nyes,10,2\nno,30,3\n"])
def test_columns_of_a_csv_file_are_put_in_order(text, tmp_path):
    train = split(csv(tmp_path / "train.csv", "a,b,kind\n1,20,no\n2,10,yes\n"), "train")
    found = split(csv(tmp_path / "more.csv", text), like=train)
    np.testing.assert_array_equal(found.inputs, X)
    np.testing.assert_array_equal(found.labels, Y)


def test_the_target_of_a_regression_is_the_column_that_training_does_not_read(tmp_path):
    task = lg.regression(1)
    train = split(csv(tmp_path / "train.csv", "a,b,price\n1,20,7\n2,10,8\n"), "train", task=task)
    found = split(csv(tmp_path / "more.csv", "price,b,a\n7,20,1\n"), like=train, task=task)
    assert found.inputs.tolist() == [[1, 20]] and found.labels.tolist() == [[7]]
    with pytest.raises(ValueError, match="which is the label"):
        split(csv(tmp_path / "two.csv", "price,b,a,c\n7,20,1,5\n"), like=train, task=task)
    chosen = split(tmp_path / "two.csv", like=train, task=task, fields=("", "c"))
    assert chosen.inputs.tolist() == [[1, 20]] and chosen.labels.tolist() == [[5]]
    with pytest.raises(ValueError, match="has no column 'b'"):
        split(csv(tmp_path / "less.csv", "price,a\n7,20\n"), like=train, task=task)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"columns": ("a", "c")}, "have the columns a, c; training has a, b"),
        ({"columns": ("a", "a")}, "have the columns a, a"),
        ({"label_names": ("dog", "cat")}, "its classes are dog, cat, and those of training cat, dog"),
        ({"words": ("", "?", "x")}, "its words are"),
        ({"inputs": X.astype(np.uint8)}, "are uint8, .* trained on float32"),
    ],
)
def test_what_means_something_else_is_refused(more, says):
    like = TRAIN._replace(label_names=("cat", "dog"), words=("", "?", "y"))
    with pytest.raises(ValueError, match=rf"^validation.*{says}"):
        alike(Dataset("validation", X, Y, 2)._replace(**more), like)


def test_a_table_alone_is_no_split():
    with pytest.raises(ValueError, match="train is a table with the columns a, b: give a pair"):
        split(Frame(X, ["a", "b"]), "train")


def test_a_network_of_a_table_predicts_by_names():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(48, 2)).astype(np.float32)
    model = own.model(2, shape=(2,), blocks=[lg.from_linen(own.Layer())])
    frame = lambda rows, names: Frame(rows, list(names))
    done = lg.fit(
        model, (frame(rows, "ab"), (rows[:, 0] > 0).astype(int)), (frame(rows[:, ::-1], "ba"), (rows[:, 0] > 0) * 1),
        epochs=2, log=lambda line: None,
    )  # fmt: skip
    network = done.predictor()
    np.testing.assert_array_equal(network.scores(frame(rows[:, ::-1], "ba")), network.scores(rows))
    accuracy = 100 * np.mean(network(rows).values == (rows[:, 0] > 0))
    assert done.summary["best_validation_accuracy"] == pytest.approx(accuracy)
    with pytest.raises(ValueError, match="inputs have the columns a, c; training has a, b"):
        network(frame(rows, "ac"))
