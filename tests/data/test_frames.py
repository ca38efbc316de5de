"""Data frames of pandas: their columns, their rows and their types, wherever they stand."""

import jax
import numpy as np
import optax
import pytest

import localgrad as lg
from localgrad.data import Dataset, Stream, alike, as_split

pd = pytest.importorskip("pandas")

FRAME = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": [20.0, 10.0, 30.0, 40.0]})
LABELS = pd.Series([0, 1, 0, 1])
X = FRAME.to_numpy(np.float32)


def split(given, name="validation", like=None, **more):
    found = as_split(given, name, shape=(2,), dtype=np.float32, task=lg.classification(2), like=like, **more)
    return found if like is None else alike(found, like)


TRAIN = split((FRAME, LABELS), "train")


@pytest.mark.parametrize(
    "given",
    [
        (FRAME[["b", "a"]], LABELS),
        {"x": FRAME[["b", "a"]], "y": LABELS},
        Dataset("a set", FRAME[["b", "a"]], LABELS, 2),
        [(FRAME[:2], LABELS[:2]), (FRAME[["b", "a"]][2:], LABELS[2:])],
        [{"x": FRAME[["b", "a"]][i : i + 1], "label": LABELS[i : i + 1]} for i in range(4)],
    ],
)
def test_columns_are_in_the_order_of_training(given):
    found = split(given, like=TRAIN)
    rows = np.concatenate([x for x, _ in found.chunks(3)]) if isinstance(found, Stream) else found.inputs
    np.testing.assert_array_equal(rows, X)


def test_a_loader_of_frames_has_the_order_of_its_first():
    given = [(FRAME[["b", "a"]][:3], LABELS[:3]), (FRAME[3:], LABELS[3:])]
    train = split(given, "train")
    np.testing.assert_array_equal(np.concatenate([x for x, _ in train.chunks(2)]), X[:, ::-1])
    assert train.look(2).columns == ("b", "a")
    with pytest.raises(ValueError, match="train: inputs have the columns a, c; training has b, a"):
        list(split([given[0], (FRAME.rename(columns={"b": "c"}), LABELS)], "train").chunks(8))


def test_a_network_that_learnt_from_a_loader_of_frames_predicts_by_names():
    spec = jax.ShapeDtypeStruct((2, 2), np.float32)
    model = lg.early_exit(lg.mlp((4,)), spec, 2, tx=optax.sgd(0.1))
    predictor = lg.fit(model, [(FRAME, LABELS)], epochs=1, log=lambda line: None).predictor()
    expected = predictor(X).scores
    np.testing.assert_array_equal(predictor(FRAME[["b", "a"]]).scores, expected)
    one = predictor(FRAME[["b", "a"]].iloc[1]).scores  # a row is a Series
    np.testing.assert_allclose(one, expected[1:2], rtol=1e-5)


def test_rows_in_another_order_are_refused():
    mixed = FRAME.sample(frac=1, random_state=1)
    with pytest.raises(ValueError, match="have the same index in another order.*targets.loc"):
        split((mixed, LABELS), "train")
    np.testing.assert_array_equal(split((mixed, LABELS.loc[mixed.index]), "train").labels, LABELS.loc[mixed.index])
    split((mixed, LABELS.to_numpy()), "train")  # nothing is known of an array's rows
    split((FRAME, LABELS.set_axis([9, 8, 7, 6])), "train")  # these say something else


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (pd.Series([True, False, True, True]), r"the columns c \(bool\)"),
        (pd.Series([1, None, 3, 4], dtype="Int64"), r"the columns c \(Int64\)"),
        (pd.Series(["x", "y", "x", "y"]), r"the columns c \((str|object)"),
        (pd.Series(["x", "y", "x", "y"], dtype="category"), r"the columns c \(category\)"),
        (pd.to_datetime(pd.Series(["2020-01-01"] * 4)), r"the columns c \(datetime"),
    ],
)
def test_columns_that_hold_no_numbers_are_named(column, says):
    with pytest.raises(ValueError, match=says):
        as_split((FRAME.assign(c=column), LABELS), "train", shape=(3,), dtype=np.float32, task=lg.classification(2))


def test_columns_of_an_arrow_table():
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"b": FRAME["b"].to_numpy(), "a": FRAME["a"].to_numpy()})
    np.testing.assert_array_equal(split((table, LABELS), like=TRAIN).inputs, X)


def test_labels_in_words_are_told_as_what_they_are():
    with pytest.raises(ValueError, match="labels are (object|str).*, not real numbers"):
        split((FRAME, pd.Series(["x", "y", "x", "y"], dtype=object)), "train")
