"""Batches of arrays that the caller holds."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from localgrad.data import batches


@pytest.mark.parametrize("lead", [(4,), (4, 2)], ids=["plain", "trials"])
def test_a_window_of_a_batch_is_fetched_along_its_examples(lead: tuple[int, ...]) -> None:
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(*lead, 6, 3)), jnp.float32)
    ys = jnp.arange(np.prod(lead) * 6, dtype=jnp.int32).reshape(*lead, 6)
    made = batches(xs, ys, first=10)
    assert made.batch_id.tolist() == [10, 11, 12, 13]
    x, y = made.fetch((made.items[0][1], made.items[1][1]), 2, 3)
    assert np.array_equal(x, xs[1][..., 2:5, :])
    assert np.array_equal(y, ys[1][..., 2:5])


def test_two_calls_share_their_fetch() -> None:
    one, other = (batches(jnp.zeros((2, 3, 1)), jnp.zeros((2, 3), jnp.int32)) for _ in range(2))
    assert one.fetch.func is other.fetch.func


@pytest.mark.parametrize("labels", [(2, 4), (3, 3), (6,), (2, 3, 1, 1)])
def test_labels_that_do_not_belong_to_the_inputs_are_refused(labels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="do not belong together"):
        batches(jnp.zeros((2, 3, 5)), jnp.zeros(labels, jnp.int32))


XS, YS = np.zeros((2, 3, 5), np.float32), np.array([[0, 1, 2], [2, 1, 0]])


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray, np.ndarray.tolist], ids=["numpy", "jax", "lists"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint32, np.int64])
def test_labels_of_any_integer_type_become_int32(kind: Any, dtype: type, x64: None) -> None:
    made = batches(kind(XS), kind(YS.astype(dtype)))
    assert made.items[1].dtype == np.int32 and np.array_equal(made.items[1], YS)
    assert isinstance(made.items[0], jax.Array) == (kind is jnp.asarray)  # nothing changes its place


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray], ids=["host", "device"])
@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (YS.astype(np.float32), r"labels are float32; expected integers from 0 .*astype\('int32'\)"),
        (YS + 0.5, r"labels are float.*argmax\(-1\)"),
        (YS > 0, "labels are booleans"),
        (YS - 1, "labels run from -1 to 1; expected 0 to 2147483647. A label of -1 marks"),
        (np.eye(5, dtype=np.int32)[YS], None),
        (np.eye(7, dtype=np.int32)[YS], r"do not belong together.*one-hot labels give labels.argmax\(-1\)"),
        (np.eye(7, dtype=np.float32)[YS], r"argmax\(-1\) of one-hot rows"),
        (YS[:, :2], "do not belong together"),
    ],
)
def test_labels_that_are_no_classes_are_refused(kind: Any, labels: np.ndarray, says: str | None) -> None:
    if says is None:  # as many classes as features: each example might be one number, and the labels of three trials
        assert batches(kind(XS), kind(labels)).items[1].ndim == 3
        return
    with pytest.raises(ValueError, match=says):
        batches(kind(XS), kind(labels))


@pytest.mark.parametrize(
    ("inputs", "labels", "says"),
    [
        (np.full(XS.shape, np.nan), YS, r"inputs hold nan at \[0, 0, 0\]; expected finite"),
        (np.where(np.arange(5) == 3, -np.inf, XS), YS, r"inputs hold -inf at \[0, 0, 3\]"),
        (np.full(XS.shape, 1e39), YS, "from 1e.39 to 1e.39, which float32 does not hold"),
        (np.full(XS.shape, 2**40), YS, "which int32 does not hold"),
        (XS.astype(object), YS, "inputs are object, not real numbers"),
        (XS.astype(str), YS, "inputs are <U.*, not real numbers"),
        (XS.astype(complex), YS, "inputs are complex128"),
        (np.ma.masked_equal(XS, 0), YS, "inputs have masked entries"),
        ([[[1], [2, 3]]], YS, "inputs make no array .*same shape"),
        (XS, [["a", "b"]], "labels are <U1"),
        (XS, YS + 2**40, "labels run from 1099511627776"),
        (XS[:0], YS[:0], r"inputs \(0, 3, 5\) are empty"),
        (XS[:, :0], YS[:, :0], "are empty"),
        (XS[..., :0], YS, "are empty"),
    ],
)
def test_arrays_that_are_no_batches_are_refused(inputs: Any, labels: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        batches(inputs, labels)


def test_traced_arrays_are_taken_by_their_types() -> None:
    made = jax.eval_shape(lambda xs, ys: batches(xs, ys).items, jnp.asarray(XS), jnp.asarray(YS - 1))
    assert made[1].dtype == np.int32
    with pytest.raises(ValueError, match="labels are float32"):
        jax.eval_shape(batches, jnp.asarray(XS), jnp.zeros((2, 3)))
