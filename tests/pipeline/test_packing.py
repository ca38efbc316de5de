"""Slots: every tree comes back from the common layout bit for bit, and the layout is no larger than promised."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from localgrad.pipeline.packing import Slots

DTYPES = [np.float32, np.float16, ml_dtypes.bfloat16, np.int32, np.uint8, np.bool_]
SHAPES = [(), (1,), (3,), (2, 3), (4, 1, 2), (0, 3), (7,), (2, 128), (1, 2, 128), (128, 2)]


def random_tree(rng: np.random.Generator, leaves: int) -> Any:
    """A nested tree of arrays: dicts, tuples, lists and nothing."""

    def leaf() -> np.ndarray:
        shape, dtype = SHAPES[rng.integers(len(SHAPES))], DTYPES[rng.integers(len(DTYPES))]
        if dtype is np.int32:  # beyond what a float32 holds exactly
            return np.asarray(rng.integers(2**24, 2**31 - 1, shape), dtype)
        return np.asarray(rng.integers(0, 256, shape)).astype(dtype)

    flat = [leaf() for _ in range(leaves)]
    third = leaves // 3
    return {"a": tuple(flat[:third]), "b": [{"c": x} for x in flat[third : 2 * third]], "d": (flat[2 * third :], None)}


def random_trees(seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    trees = [random_tree(rng, int(rng.integers(0, 12))) for _ in range(rng.integers(1, 5))]
    return [*trees, (), {"count": np.int32(2**31 - 1)}]


def assert_same(tree: Any, other: Any) -> None:
    def same(a: Any, b: Any) -> None:
        assert a.dtype == b.dtype and a.shape == b.shape
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()

    jax.tree.map(same, tree, other)  # which raises where the structures differ


# Every tree is laid out by one of the two, and half of the trees by each.
@pytest.mark.parametrize(
    ("seed", "xp"),
    [
        pytest.param(seed, xp, id=f"{seed}-{xp.__name__}", marks=pytest.mark.full if (seed + at) % 2 else [])
        for seed in range(8)
        for at, xp in enumerate((np, jnp))
    ],
)
def test_round_trip(seed: int, xp: Any) -> None:
    trees = random_trees(seed)
    slots = Slots(trees)
    for which, tree in enumerate(trees):
        tree = tree if xp is np else jax.tree.map(jnp.asarray, tree)
        packed = slots.pack(which, tree, xp)
        assert [(x.shape, x.dtype) for x in packed] == [(spec.shape, spec.dtype) for spec in slots.specs]
        assert_same(slots.unpack(which, [jnp.asarray(x) for x in packed]), tree)


@pytest.mark.parametrize("seed", range(8))
def test_size(seed: int) -> None:
    """Slot j of a dtype is as large as the largest j-th leaf, by size, over the trees; what is left over is zero."""
    trees = random_trees(seed)
    slots = Slots(trees)
    for dtype in map(np.dtype, DTYPES):
        sizes = [sorted((x.size for x in jax.tree.leaves(tree) if x.dtype == dtype), reverse=True) for tree in trees]
        longest = max(map(len, sizes))
        expected = np.max([np.pad(row, (0, longest - len(row))) for row in sizes], 0).tolist() if longest else []
        assert [math.prod(spec.shape) for spec in slots.specs if spec.dtype == dtype] == expected
    for which, tree in enumerate(trees):
        packed = slots.pack(which, tree, np)
        used = sum(np.count_nonzero(x) for x in jax.tree.leaves(tree))
        assert sum(np.count_nonzero(x) for x in packed) == used


def test_one_tree_is_not_padded() -> None:
    tree = {"w": np.ones((3, 4), np.float32), "b": np.ones((4,), np.float32), "count": np.ones((), np.int32)}
    assert [spec.shape for spec in Slots([tree]).specs] == [(12,), (4,), (1,)]
    assert Slots([tree, tree]).specs == Slots([tree]).specs


def ones(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    return [np.ones(shape, np.float32) for shape in shapes]


def shapes_of(*trees: Any) -> list[tuple[int, ...]]:
    return [spec.shape for spec in Slots(trees).specs]


def test_a_slot_has_the_shape_of_its_largest_leaf() -> None:
    """Leaves of one size meet those of their own shape; of several shapes of one size the most frequent is taken."""
    first = ones((128, 256), (256, 128), (4,))
    assert shapes_of(first, ones((256, 128), (128, 256))) == [(128, 256), (256, 128), (4,)]
    others = ones((64, 512), (256, 128)), ones((128, 256), (5, 128))
    assert shapes_of(first, *others) == [(128, 256), (256, 128), (4,)]


@pytest.mark.parametrize("shape", [(128, 10), (3, 3, 32, 32), (8, 129), (4, 128, 200), (5, 1)])
def test_a_shape_that_would_fill_tiles_badly_is_not_kept(shape: tuple[int, ...]) -> None:
    assert shapes_of(ones(shape)) == [(math.prod(shape),)]
    assert shapes_of(ones((*shape[:-1], 500))) == [(*shape[:-1], 500)]


def test_a_smaller_leaf_fills_a_corner_or_the_first_rows() -> None:
    """In a corner where it fills tiles itself; a narrow one would have the whole slot laid out for it."""
    trees = ones((3, 256), (2, 128), (3, 2), (1, 257), (5,))
    slots = Slots(trees)
    laid = [slots.pack(which, tree, np)[0] for which, tree in enumerate(trees)]
    expected = [np.zeros((3, 256)) for _ in trees]
    expected[0][:], expected[1][:2, :128], expected[2][0, :6] = 1, 1, 1
    expected[3].flat[:257], expected[4][0, :5] = 1, 1
    for found, right in zip(laid, expected, strict=True):
        np.testing.assert_array_equal(found, right)
    for which, tree in enumerate(trees):
        assert_same(slots.unpack(which, [jnp.asarray(laid[which])]), tree)


@pytest.mark.parametrize("lead", [(2,), (3, 1)])
def test_leading_axes_are_kept(lead: tuple[int, ...]) -> None:
    trees = random_trees(1)
    slots = Slots(trees)
    for which, tree in enumerate(trees):
        packed = [jnp.broadcast_to(x, (*lead, *x.shape)) for x in slots.pack(which, tree, np)]
        expected = jax.tree.map(lambda x: np.broadcast_to(x, (*lead, *x.shape)), tree)
        assert_same(slots.unpack(which, packed), expected)


def test_inside_jit() -> None:
    trees = [{"a": jnp.arange(6.0).reshape(2, 3)}, {"b": (jnp.arange(8.0), jnp.int32(7))}]
    slots = Slots([jax.eval_shape(lambda tree=tree: tree) for tree in trees])  # specs serve as well as arrays
    for which, tree in enumerate(trees):
        assert_same(jax.jit(lambda tree, w=which: slots.unpack(w, slots.pack(w, tree)))(tree), tree)


def test_fill() -> None:
    slots = Slots([{"a": np.ones(3, np.float32), "h": np.ones(2, ml_dtypes.bfloat16), "n": np.ones(2, np.int32)}])
    for filled, spec in zip(slots.fill(float("nan")), slots.specs, strict=True):
        assert (filled.shape, filled.dtype) == (spec.shape, spec.dtype)
        assert np.isnan(filled).all() if spec.dtype != np.int32 else not np.asarray(filled).any()
    assert not any(np.asarray(filled, np.float32).any() for filled in slots.fill())


def test_no_leaves_at_all() -> None:
    slots = Slots([(), {}])
    assert slots.specs == slots.pack(0, ()) == slots.fill() == []
    assert slots.unpack(1, []) == {}


def test_float64(x64: None) -> None:
    tree = {"x": jnp.asarray([np.pi, 1e-300]), "n": jnp.asarray(2**62)}
    slots = Slots([tree, {"x": jnp.zeros(5)}])
    assert_same(slots.unpack(0, slots.pack(0, tree)), tree)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
@pytest.mark.parametrize("shape", [(), (2,)])
def test_keys_are_kept_as_their_data(impl: str, shape: tuple[int, ...]) -> None:
    """Some optimizers hold a key; it comes back as a key of its own kind."""
    keys = jax.random.split(jax.random.key(3, impl=impl), 2)
    keys = keys[0] if shape == () else keys
    trees = [{"key": keys, "x": jnp.ones(3)}, {"x": jnp.zeros((2, 2))}]
    slots = Slots(trees)
    back = slots.unpack(0, slots.pack(0, trees[0]))
    assert back["key"].dtype == keys.dtype and back["key"].shape == shape
    assert np.array_equal(jax.random.key_data(back["key"]), jax.random.key_data(keys))
