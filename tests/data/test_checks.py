"""Numbers are looked at before anything is made of them: their types, their masks, their digits."""

import jax.numpy as jnp
import numpy as np
import pytest

import localgrad as lg
from localgrad.data import Dataset, Stream, alike, as_split
from localgrad.data.checks import as_array, as_trained

ROWS = np.arange(12, dtype=np.float64).reshape(6, 2)


def split(x, y=None, name="train", task=None, **more):
    y = np.array([0, 1] * (len(x) // 2)) if y is None else y
    return as_split((x, y), name, shape=(2,), dtype=np.float32, task=task or lg.classification(2), **more)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.ma.masked_greater(ROWS, 3), "masked entries"),
        (ROWS.astype("m8[s]"), "are timedelta64.*, not real numbers"),
        (ROWS.astype("M8[s]"), "are datetime64.*, not real numbers"),
        (ROWS.astype(complex), "are complex128, not real numbers"),
        ([[1, 2], [3]], "every example must have the same shape"),
    ],
)
def test_what_is_no_array_of_numbers(values, says):
    with pytest.raises(ValueError, match=f"^rows .*{says}"):
        as_array(values, "rows")


@pytest.mark.skipif(np.longdouble == np.float64, reason="it has no wider floats")
def test_floats_that_jax_has_not():
    with pytest.raises(ValueError, match="not real numbers"):
        as_array(ROWS.astype(np.longdouble), "rows")


def test_tensors_that_make_no_array():
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match="^rows, a Tensor, make no array: .*detach"):
        as_array(torch.zeros(3, requires_grad=True), "rows")
    with pytest.raises(ValueError, match="^rows, a Tensor, make no array: .*BFloat16"):
        as_array(torch.zeros(3, dtype=torch.bfloat16), "rows")


@pytest.mark.parametrize("task", [lg.classification(2), lg.regression(1), lg.multilabel(2)])
def test_masked_targets_are_refused(task):
    y = {"classification": np.array([0, 1] * 3), "regression": ROWS[:, 0], "multilabel": ROWS.astype(int) % 2}
    masked = np.ma.array(y[task.name], mask=np.arange(y[task.name].size).reshape(y[task.name].shape) == 2)
    for given in ((ROWS, masked), {"x": ROWS, "y": masked}, Dataset("a set", ROWS, masked, task=task)):
        with pytest.raises(ValueError, match="labels have masked entries"):
            as_split(given, "train", shape=(2,), dtype=np.float32, task=task)
    with pytest.raises(ValueError, match="inputs have masked entries"):
        hidden = Dataset("a set", np.ma.masked_greater(ROWS, 3), y[task.name], task=task)
        as_split(hidden, "train", shape=(2,), dtype=np.float32, task=task)


@pytest.mark.parametrize(
    ("found", "trained"),
    [
        (np.array([[True, False]]), np.float32),
        (np.array([[1, 0]]), bool),
        (np.array([[1.0, 0.0]]), bool),
        (np.array([[5, 300]]), np.float32),
        (np.array([[5, 300]], np.int16), np.int32),
        (np.array([[5, 200]]), np.uint8),
        (np.array([[0.5, 200]]), np.float16),
    ],
)
def test_inputs_that_mean_the_same_have_the_type_of_training(found, trained):
    given = as_trained(found, trained, "inputs")
    assert given.dtype == trained
    np.testing.assert_array_equal(given.astype(float), found.astype(float))


@pytest.mark.parametrize(
    ("found", "trained", "says"),
    [
        (np.array([[0, 255]], np.uint8), np.float32, "scaled by whoever made them"),
        (np.array([[0.0, 1.0]]), np.uint8, "scales them itself: give them unscaled"),
        (np.array([[True, False]]), np.uint8, "give them unscaled"),
        (np.array([[0, 255]], np.uint8), bool, "which holds 0 and 1 alone"),
        (np.array([[0.3, 1.0]]), bool, "which holds 0 and 1 alone"),
        (np.array([[0.5, 1.0]]), np.int32, "give them as whole numbers"),
        (np.array([[5, 300]]), np.uint8, "which holds 0 to 255: give them in the units of training"),
        (np.array([[0.0, 70000.0]]), np.float16, "which holds -65504.0 to 65504.0"),
    ],
)
def test_inputs_of_another_kind_than_training_are_refused(found, trained, says):
    with pytest.raises(ValueError, match=f"^inputs .*, and the network is trained on .*{says}"):
        as_trained(found, trained, "inputs")
    like = Dataset("train", np.zeros((1, 2), trained), np.zeros(1, int), 2)
    loader = Stream("validation", [(found, [1])], (2,), lg.classification(2))
    for given in (Dataset("validation", found, np.zeros(1, int), 2), loader):
        with pytest.raises(ValueError, match=f"^validation: inputs .*{says}"):
            list(getattr(alike(given, like), "chunks", lambda size: ())(1))


@pytest.mark.parametrize("kind", [np.float64, np.int64, np.int32])
def test_digits_that_would_be_lost_are_told(kind):
    far = np.stack([1_700_000_000 + 60 * np.arange(6), np.arange(6)], 1).astype(kind)
    with pytest.raises(ValueError, match=r"from 1700000000.0 to 1700000300.0 in column 0, and float32 .* offset"):
        split(far)
    split(far - far[:1])
    split(np.stack([1e6 + np.arange(6.0), np.arange(6.0)], 1).astype(kind))  # float32 holds these
    split(np.stack([1_700_000_000 * np.arange(6), np.arange(6)], 1).clip(max=2**31 - 1).astype(kind))  # far apart
    split(np.stack([np.full(6, 1_700_000_001), np.arange(6)], 1).astype(kind))  # one number alone tells nothing


def test_classes_are_called_as_they_are_numbered():
    train = split(ROWS)._replace(label_names=("1", "10"))
    with pytest.raises(ValueError, match="its labels are numbers alone, and class 0 of training is called '1'"):
        alike(split(ROWS, name="validation"), train)
    alike(split(ROWS, name="validation"), train._replace(label_names=("0", "1")))
    alike(split(ROWS, name="validation"), train._replace(label_names=("cat", "dog")))


def test_another_task_is_refused():
    with pytest.raises(ValueError, match="validation is for regression of 2, and training for classification of 2"):
        alike(Dataset("validation", ROWS, ROWS, task=lg.regression(2)), split(ROWS))
    with pytest.raises(ValueError, match="train has 3 classes, a, b, c; the model has 2"):
        named = Dataset("train", ROWS, np.array([0, 1] * 3), 2, label_names=("a", "b", "c"))
        as_split(named, "train", shape=(2,), dtype=np.float32, task=lg.classification(2))


def test_bfloat16_has_a_fingerprint():
    rows = jnp.asarray(ROWS, jnp.bfloat16)
    assert lg.data.fingerprint(split(rows))["shape"] == "(6, 2) bfloat16"


def test_lists_beside_an_array_are_labels():
    np.testing.assert_array_equal(split(ROWS, [0, 1] * 3).labels, [0, 1] * 3)


def test_pictures_of_a_palette_are_what_one_sees():
    image = pytest.importorskip("PIL.Image")
    grey = image.fromarray(np.array([[10, 200], [30, 40]], np.uint8))
    np.testing.assert_array_equal(as_array(grey.convert("P"), "inputs"), np.asarray(grey))
    np.testing.assert_array_equal(as_array([grey.convert("P"), grey], "inputs"), [np.asarray(grey)] * 2)
    assert as_array(grey.convert("1"), "inputs").dtype == np.uint8


def test_a_narrower_model_scales_its_inputs_before_they_are_narrow():
    years = np.stack([1990.0 + np.arange(6), np.arange(6.0)], 1).astype(np.float32)
    found = as_split((years, [0, 1] * 3), "train", shape=(2,), dtype=jnp.bfloat16, task=lg.classification(2))
    np.testing.assert_array_equal(found.inputs, years)
