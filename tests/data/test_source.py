import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from localgrad import base
from localgrad.data import Dataset, augmentation, eval_batches, pixel_stats, source

N, BATCH = 50, 8  # six full batches an epoch, two examples left over


@functools.cache
def colours() -> Dataset:
    """Each image tells its own number: its first pixel is its place in the set."""
    images = np.random.default_rng(0).integers(0, 256, (N, 6, 6, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(N)
    return Dataset("colours", images, (np.arange(N) * 7 % 10).astype(np.int32), 10)


def make(**changed: Any) -> base.Source:
    mean, std = pixel_stats(colours())
    arguments = {"batch_size": BATCH, "seed": 3, "mean": mean, "std": std}
    return source(colours(), **(arguments | changed))


@functools.partial(jax.jit, static_argnames="count")
def fetch_all(batches: base.Batches, start: int = 0, count: int = BATCH) -> tuple[jax.Array, jax.Array]:
    """All batches of a call as an engine has them: a scan over the items."""
    return jax.lax.map(lambda item: batches.fetch(item, start, count), batches.items)


def raw(**changed: Any) -> base.Source:
    """x is the bytes themselves."""
    return make(mean=np.zeros(()), std=np.ones(()), **changed)


def equal(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("resident", [True, False])
def test_an_epoch_shows_whole_pictures_once_each_with_their_labels(resident: bool) -> None:
    made = raw(resident=resident)
    assert made.steps_per_epoch == 6
    seen = []
    for epoch in range(2):
        batches = made.batches(6 * epoch, 6)
        assert batches.batch_id.dtype == jnp.int32
        assert batches.batch_id.tolist() == list(range(6 * epoch, 6 * epoch + 6))
        x, y = fetch_all(batches)
        assert x.shape == (6, BATCH, 6, 6, 3) and x.dtype == jnp.float32
        assert y.shape == (6, BATCH) and y.dtype == jnp.int32
        example = np.asarray(x[..., 0, 0, 0]).astype(int).ravel()
        assert len(set(example.tolist())) == 48
        np.testing.assert_array_equal(np.asarray(x).reshape(48, 6, 6, 3), colours().inputs[example])
        np.testing.assert_array_equal(np.asarray(y).ravel(), colours().labels[example])
        seen.append(example)
    assert not np.array_equal(*seen)


def test_x_is_normalised() -> None:
    mean, std = pixel_stats(colours())
    plain, _ = fetch_all(raw().batches(0, 6))
    found, _ = fetch_all(make().batches(0, 6))
    np.testing.assert_allclose(found, (np.asarray(plain, np.float64) - mean) / std, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("trials", "augment", "dtype"),
    [
        (None, None, jnp.float32),
        (None, augmentation("crop,flip", pad=1), jnp.bfloat16),
        (2, augmentation("flip"), jnp.float32),
    ],
)
def test_streamed_equals_resident(trials: int | None, augment: Any, dtype: Any) -> None:
    made = [make(resident=r, trials=trials, augment=augment, dtype=dtype).batches(5, 2) for r in (True, False)]
    assert made[0].items.nbytes == 8  # two batch ids
    assert fetch_all(made[0])[0].dtype == dtype
    equal(*map(fetch_all, made))


@pytest.mark.parametrize("resident", [True, False])
def test_trials_equal_sources_of_their_own_seeds(resident: bool) -> None:
    change = augmentation("flip")  # of programs that other tests here compile as well
    x, y = fetch_all(make(trials=2, augment=change, resident=resident).batches(5, 2))
    assert x.shape == (2, 2, BATCH, 6, 6, 3) and y.shape == (2, 2, BATCH)
    for trial in range(2):
        alone = fetch_all(make(seed=3 + trial, augment=change, resident=resident).batches(5, 2))
        equal(alone, (x[:, trial], y[:, trial]))
    assert not np.array_equal(y[:, 0], y[:, 1])


def test_trials_share_the_resident_images() -> None:
    fetch = make(trials=3, resident=True).batches(0, 1).fetch
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(fetch) if leaf.dtype == jnp.uint8) == colours().inputs.nbytes


@pytest.mark.parametrize(("resident", "trials"), [(True, None), (False, 2)])
def test_parts_of_a_batch_are_parts_of_the_whole(resident: bool, trials: int | None) -> None:
    """Data shards draw, augmentation and all, what one device would; start is traced here, count is not."""
    batches = make(resident=resident, trials=trials, augment=augmentation("flip")).batches(5, 2)
    axis = 1 if trials is None else 2
    parts = [fetch_all(batches, jnp.int32(start), count=4) for start in (0, 4)]
    equal(fetch_all(batches), jax.tree.map(lambda *pair: jnp.concatenate(pair, axis), *parts))


@pytest.mark.parametrize("resident", [True, False])
def test_how_batches_are_called_for_does_not_matter(resident: bool) -> None:
    made = make(resident=resident, augment=augmentation("flip"))
    whole = fetch_all(made.batches(3, 6))
    for first, count in ((0, 2), (2, 2), (4, 2)):
        equal(fetch_all(made.batches(3 + first, count)), jax.tree.map(lambda a: a[first : first + count], whole))  # noqa: B023


def test_seeds_and_epochs_augment_differently() -> None:
    change = augmentation("crop", pad=1)
    first, later = (fetch_all(make(augment=change, shuffle=False).batches(start, 2)) for start in (0, 6))
    other = fetch_all(make(augment=change, shuffle=False, seed=4).batches(0, 2))
    equal(first[1], later[1])
    assert not np.array_equal(first[0], later[0]) and not np.array_equal(first[0], other[0])


# Of one network they are drawn as those of each trial are.
@pytest.mark.parametrize("trials", [pytest.param(None, marks=pytest.mark.full), 2])
def test_views_of_an_example_are_augmented_independently(trials: int | None) -> None:
    augment = augmentation(("crop", "flip"), pad=2)
    x, y = fetch_all(raw(augment=augment, views=2, trials=trials).batches(0, 2))
    _, one_y = fetch_all(raw(augment=augment, trials=trials).batches(0, 2))
    lead = (2,) if trials is None else (2, trials)
    assert x.shape == (*lead, BATCH, 2, 6, 6, 3)
    equal(y, one_y)
    same = np.all(np.asarray(x[..., 0, :, :, :] == x[..., 1, :, :, :]), axis=(-3, -2, -1))
    assert same.mean() < 0.2
    plain, _ = fetch_all(raw(views=2, trials=trials).batches(0, 2))
    equal(plain[..., 0, :, :, :], plain[..., 1, :, :, :])


def test_without_shuffling_the_order_is_the_datasets() -> None:
    for start in (0, 6):
        _, y = fetch_all(make(shuffle=False).batches(start, 6))
        np.testing.assert_array_equal(np.asarray(y).ravel(), colours().labels[:48])


def test_a_whole_set_in_one_batch() -> None:
    made = raw(batch_size=N)
    assert made.steps_per_epoch == 1
    x, _ = fetch_all(made.batches(2, 1), count=N)
    assert sorted(np.asarray(x[..., 0, 0, 0]).ravel().tolist()) == list(range(N))


@pytest.mark.parametrize("resident", [True, False])
def test_nothing_is_traced_twice(resident: bool) -> None:
    traces = []

    @jax.jit
    def step(batches: base.Batches) -> jax.Array:
        traces.append(batches)
        return jax.lax.map(lambda item: batches.fetch(item, 0, BATCH)[0].sum(), batches.items)

    made = make(resident=resident)
    step(made.batches(0, 2))
    step(made.batches(12, 2))
    step(make(resident=resident, seed=9).batches(0, 2))
    assert len(traces) == 1


def test_the_limit_chooses_where_the_images_live() -> None:
    size = colours().inputs.nbytes
    assert isinstance(make(resident_limit=size).batches(0, 1).items, jax.Array)
    assert isinstance(make(resident_limit=size - 1).batches(0, 1).items, dict)


def test_all_arrays_are_placed_by_put() -> None:
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    everywhere = jax.NamedSharding(mesh, jax.P())
    for resident in (True, False):
        batches = make(resident=resident, put=lambda tree: jax.device_put(tree, everywhere)).batches(0, 2)
        assert all(leaf.sharding.is_equivalent_to(everywhere, leaf.ndim) for leaf in jax.tree.leaves(batches))


def test_float64_where_it_is_switched_on() -> None:
    mean, std = pixel_stats(colours())
    with jax.enable_x64(False), pytest.raises(ValueError, match=r"dtype=float64 while .*JAX_ENABLE_X64=1"):
        make(dtype=jnp.float64)
    plain, narrow_y = fetch_all(raw().batches(0, 2))
    with jax.enable_x64(True):
        found, y = fetch_all(make(dtype=jnp.float64).batches(0, 2))
    np.testing.assert_allclose(found, (np.asarray(plain, np.float64) - mean) / std, rtol=1e-13, atol=1e-13)
    equal(y, narrow_y)  # the order is the same, and labels stay int32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make(batch_size=0), r"batch_size=0 with 50 training examples of colours; expected 1 \.\. 50"),
        (lambda: make(batch_size=51), r"batch_size=51 with 50 training examples of colours"),
        (lambda: make(trials=0), r"trials=0; expected at least 1, or None"),
        (lambda: make(seed=-1), r"seed=-1; expected 0 \.\. 2\*\*32 - 1"),
        (lambda: make(dtype=jnp.int32), r"dtype=int32; expected a floating type"),
        (
            lambda: make(mean=np.zeros(2)),
            r"mean=\[0\. 0\.\]; expected one finite number, or one for each of 3 channels",
        ),
        (lambda: make(std=np.array([1.0, 0.0, 1.0])), r"std=\[1\. 0\. 1\.\]; expected positive numbers"),
        (lambda: make(std=np.nan), r"std=nan; expected one finite number"),
        (lambda: make().batches(-1, 2), r"batches\(first=-1, count=2\); expected first >= 0, count >= 1"),
        (lambda: make().batches(0, 0), r"batches\(first=0, count=0\)"),
        (lambda: make().batches(2**31 - 2, 2), r"a sum of at most 2147483647"),
        (lambda: make().batches(0, 1).fetch(jnp.int32(0), 0, 9), r"fetch of count=9 examples; expected 1 \.\. 8"),
        (lambda: eval_batches(colours(), 0, np.zeros(()), np.ones(())), r"batch_size=0; expected at least 1"),
    ],
)
def test_arguments_out_of_range_are_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("batch_size", [1, 20, 25, 50, 64])
def test_evaluation_sees_each_example_once_in_order(batch_size: int) -> None:
    mean, std = pixel_stats(colours())
    seen = list(eval_batches(colours(), batch_size, mean, std))
    assert len(seen) == -(-N // batch_size)
    for x, y, mask in seen:
        assert x.shape == (batch_size, 6, 6, 3) and x.dtype == jnp.float32
        assert y.shape == mask.shape == (batch_size,) and y.dtype == jnp.int32 and mask.dtype == bool
        assert np.isfinite(x).all()
    x, y, mask = (np.concatenate(arrays) for arrays in zip(*seen, strict=True))
    assert mask[:N].all() and not mask[N:].any()
    np.testing.assert_array_equal(y[mask], colours().labels)
    np.testing.assert_allclose(x[mask], (colours().inputs - mean) / std, rtol=1e-5, atol=1e-5)


def test_evaluation_and_training_normalise_alike() -> None:
    mean, std = pixel_stats(colours())
    x, y, _ = next(iter(eval_batches(colours(), BATCH, mean, std, jnp.bfloat16)))
    train_x, train_y = fetch_all(make(shuffle=False, dtype=jnp.bfloat16).batches(0, 1))
    equal((x, y), (train_x[0], train_y[0]))
