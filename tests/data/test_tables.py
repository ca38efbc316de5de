"""Datasets that anyone may make: tables and pictures of floats through the source, and what is refused of them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from localgrad.data import Dataset, augmentation, eval_batches, first, pixel_stats, source, with_label_noise

N, BATCH = 24, 8
ROWS = np.random.default_rng(0).normal([3, -50, 0], [1, 20, 1e-3], (N, 3))
LABELS = np.arange(N) % 4


def table(inputs: Any = ROWS, labels: Any = LABELS, classes: Any = 4, words: Any = None) -> Dataset:
    return Dataset("rows", inputs, labels, classes, words)


def read(dataset: Dataset, resident: bool = True, **arguments: Any) -> tuple[np.ndarray, np.ndarray]:
    """The first epoch, in the order of the set."""
    made = source(dataset, batch_size=BATCH, seed=0, shuffle=False, resident=resident, **arguments).batches(0, 3)
    x, y = jax.lax.map(lambda item: made.fetch(item, 0, BATCH), made.items)
    return np.asarray(x).reshape(N, *x.shape[2:]), np.asarray(y).ravel()


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize(
    "inputs",
    [
        ROWS,
        ROWS.astype(np.float32),
        ROWS.astype(np.float16),
        ROWS.astype(jnp.bfloat16),
        ROWS.astype(np.int64),
        (ROWS > 0),
        ROWS.tolist(),
        jnp.asarray(ROWS),
        np.abs(ROWS).astype(np.uint8).reshape(N, 1, 3, 1),
        ROWS.reshape(N, 3, 1),
    ],
    ids=lambda inputs: f"{type(inputs).__name__} {getattr(inputs, 'dtype', '')}{getattr(inputs, 'shape', '')}",
)
def test_numbers_of_any_kind_and_shape(inputs: Any, resident: bool) -> None:
    expected = np.asarray(inputs).astype(np.float32)
    x, y = read(table(inputs), resident)
    assert x.dtype == np.float32 and y.dtype == np.int32
    np.testing.assert_array_equal(x, expected)
    np.testing.assert_array_equal(y, LABELS)
    mean, std = pixel_stats(table(inputs))
    wide = np.asarray(inputs).astype(np.float64).reshape(-1, expected.shape[-1])
    np.testing.assert_allclose(mean, wide.mean(axis=0), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(std, np.where(wide.std(axis=0) > 0, wide.std(axis=0), 1), rtol=1e-5)
    x, _ = read(table(inputs), resident, mean=mean, std=std)
    np.testing.assert_allclose(x.reshape(-1, expected.shape[-1]), (wide - mean) / std, atol=2e-3)
    seen = list(eval_batches(table(inputs), 10, mean, std))
    np.testing.assert_array_equal(np.concatenate([one[mask] for one, _, mask in seen]), x)


def test_a_column_that_never_varies_is_normalised_to_nothing() -> None:
    rows = np.array(ROWS)
    rows[:, 1] = 0.1  # whose mean is rounded
    mean, std = pixel_stats(table(rows))
    assert std[1] == 1 and std[0] == pytest.approx(rows[:, 0].std())
    assert (abs(read(table(rows), mean=mean, std=std)[0][:, 1]) < 1e-6).all()


def test_evaluation_can_be_gone_through_again() -> None:
    made = eval_batches(table(), 10)
    twice = [[(x.tolist(), y.tolist(), mask.sum()) for x, y, mask in made] for _ in range(2)]
    assert len(made) == len(twice[0]) == 3 and twice[0] == twice[1]
    one, other = iter(made), iter(made)
    next(one)
    assert next(other)[1].tolist() == LABELS[:10].tolist()  # each goes its own way


@pytest.mark.parametrize("call", [lambda d: source(d, batch_size=4, seed=0), lambda d: eval_batches(d, 4)])
@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        (table(labels=LABELS - 1), "rows: labels run from -1 to 2; expected 0 to 3. A label of -1"),
        (table(classes=3), "rows: labels run from 0 to 3; expected 0 to 2"),
        (table(labels=LABELS * 1.0), r"rows: labels are float64; expected integers from 0 to 3"),
        (table(labels=LABELS > 1), "rows: labels are booleans"),
        (table(labels=np.eye(4)[LABELS]), r"rows: labels are \(24, 4\).*one-hot labels give labels.argmax"),
        (table(labels=LABELS[:, None]), r"rows: labels are \(24, 1\).*Give labels\[:, 0\]"),
        (table(labels=LABELS[:-1]), r"rows: found labels \(23,\) for 24 inputs; expected one each"),
        (table(labels=LABELS.astype(str)), "rows: labels are <U"),
        (table(labels=LABELS + 2**33), "rows: labels run from 8589934592"),
        (table(classes=0), "rows: classes=0; expected a whole number"),
        (table(classes=4.0), "rows: classes=4.0"),
        (table(classes=True), "rows: classes=True"),
        (table(ROWS[:0], LABELS[:0]), r"rows: inputs are \(0, 3\)"),
        (table(ROWS[:, :0]), r"rows: inputs are \(24, 0\)"),
        (table(ROWS[:, 0]), r"rows: inputs are \(24,\).*give inputs\[:, None\]"),
        (table(np.where(ROWS > 3, np.nan, ROWS)), r"rows: inputs hold nan at \["),
        (table(np.where(ROWS > 3, np.inf, ROWS)), "rows: inputs hold inf"),
        (table(np.where(ROWS > 3, jnp.bfloat16(np.nan), ROWS.astype(jnp.bfloat16))), "rows: inputs hold nan"),
        (table(ROWS * 1e40), "which float32 does not hold"),
        (table(ROWS.astype(object)), "rows: inputs are object"),
        (table([[1.0], [2.0, 3.0]]), "rows: inputs make no array"),
        (table(np.ones((N, 3)), words=("a", "b")), r"rows: it has words, and its inputs are float32 \(24, 3\)"),
        (table(np.full((N, 3), 2), words=("a", "b")), "rows: numbers of words run from 2 to 2; expected 0 to 1"),
        (table(np.full((N, 3), -1), words=("a", "b")), "rows: numbers of words run from -1"),
    ],
)
def test_a_set_that_is_none_is_refused_at_the_call(call: Callable, dataset: Dataset, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call(dataset)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"mean": np.zeros(3)}, "mean is given without std"),
        ({"std": np.ones(3)}, "std is given without mean"),
        ({"mean": np.zeros(2), "std": np.ones(2)}, r"mean=\[0. 0.\]; expected one finite number, or one for each of 3"),
        ({"mean": 0.0, "std": 1e-42}, "become 1e.42, beyond float32"),
        ({"mean": 0.0, "std": 1e-5, "dtype": jnp.float16}, "beyond float16"),
        ({"augment": augmentation("crop")}, r"augment does not take the inputs of rows, float32 \(8, 3\).*of images"),
        ({"augment": augmentation("flip")}, r"of images \(B, H, W, C\); got \(8, 3\)"),
        ({"augment": lambda keys, inputs: inputs @ jnp.zeros((7, 7))}, "augment does not take"),
    ],
)
def test_arguments_that_do_not_fit_a_table_are_refused(arguments: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        source(table(ROWS.astype(np.float32)), batch_size=BATCH, seed=0, **arguments)


def test_numbers_beyond_a_narrow_type_are_refused() -> None:
    with pytest.raises(ValueError, match="inputs of up to .* beyond float16"):
        eval_batches(table(ROWS * 1e4), 8, dtype=jnp.float16)


def test_rows_of_a_table_may_be_augmented() -> None:
    def noise(keys: jax.Array, rows: jax.Array) -> jax.Array:
        return rows + jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys)

    x, _ = read(table(np.zeros((N, 3), np.float32)), augment=noise)
    assert len(np.unique(x)) == 3 * N


def test_texts_have_no_statistics() -> None:
    with pytest.raises(ValueError, match="rows holds texts"):
        pixel_stats(table(np.ones((N, 3), np.int32), words=("a", "b")))


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_between_nothing_and_all(share: float) -> None:
    with pytest.raises(ValueError, match=r"share=.* of the labels; expected 0 to 1"):
        with_label_noise(table(), share)


@pytest.mark.parametrize("count", [0, -3])
def test_the_first_none_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"count={count} examples of rows; expected at least 1"):
        first(table(), count)
