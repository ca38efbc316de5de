from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import localgrad as lg
from localgrad.base import LocalBlock
from localgrad.methods import kernels
from localgrad.methods.groups import Optimizers, by_group, check_kernels, first_states, scaled, transforms

GRADS = {"f": {"w": jnp.array([3.0, 0.0])}, "b": jnp.array([4.0]), "g": jnp.array([12.0])}


def learn(tx: Optimizers, *moments: tuple[str, ...], value: float | None = None) -> dict:
    """What transforms make of the gradients, all moments at once."""
    found, updates = transforms(tx, *(moments or (("f", "b", "g"),))), {}
    states = first_states(found, GRADS, jax.random.key(0))
    for key, one in found.items():
        own = {group: GRADS[group] for group in key.split("+")}
        extra = {} if value is None else {"value": jnp.array(value)}
        updates |= one.update(own, states[key], own, **extra)[0]
    return updates


def test_each_group_has_its_transform_and_none_fixes_it() -> None:
    updates = learn({"f": optax.sgd(1.0), "b": optax.sgd(2.0), "g": None, "h": optax.sgd(1.0)})
    np.testing.assert_array_equal(updates["f"]["w"], [-3.0, 0.0])
    np.testing.assert_array_equal(updates["b"], [-8.0])
    assert set(updates) == {"f", "b"}


def test_a_norm_spans_the_groups_of_its_key_or_of_a_moment() -> None:
    clip = optax.clip_by_global_norm(1.0)
    for updates in (learn({"f+b": clip, "g": clip}), learn(clip, ("f", "b"), ("g",))):
        np.testing.assert_allclose(updates["f"]["w"], [0.6, 0.0], rtol=1e-6)  # the norm of (3, 4) is 5
        np.testing.assert_allclose(updates["b"], [0.8], rtol=1e-6)
        np.testing.assert_allclose(updates["g"], [1.0], rtol=1e-6)


def test_a_group_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"named twice in the keys \['f\+b', 'b'\]"):
        transforms({"f+b": optax.sgd(1.0), "b": optax.sgd(1.0)}, ("f", "b"))
    with pytest.raises(ValueError, match="named twice"):
        by_group({"f+b": optax.sgd(1.0), "b": optax.sgd(1.0)})
    given = {"f": optax.sgd(1.0), "b": None}
    assert by_group(given) is given


@pytest.mark.parametrize("groups", [("f", "b"), ("f", "b", "h")])
def test_groups_other_than_the_blocks_are_refused(groups: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"parameters are in the groups \['b', 'f', 'g'\]: name each of those exactly"):
        learn({group: optax.sgd(1.0) for group in groups})


def test_a_transform_of_two_moments_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'b\+g' spans groups that learn at different moments, b and g: give each"):
        learn({"f": optax.sgd(1.0), "b+g": optax.sgd(1.0)}, ("f", "b"), ("g",))


@pytest.mark.parametrize("tx", [None, 1e-3, {"f+b+g": 1e-3}])
def test_what_is_no_transform_is_refused(tx) -> None:
    with pytest.raises(TypeError, match="tx is an optax transform, or a mapping of groups to such; got"):
        learn(tx)


@pytest.mark.parametrize(
    "inner", [optax.adam(0.1), optax.adamw(0.1), optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))]
)
def test_a_scaled_transform_is_the_same_at_another_rate(inner) -> None:
    tx = scaled(inner, {"g": 2.0})
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = tx.update(GRADS, tx.init(GRADS), GRADS)
        plain, _ = inner.update(GRADS, inner.init(GRADS), GRADS)
    np.testing.assert_array_equal(updates["f"]["w"], plain["f"]["w"])
    np.testing.assert_array_equal(updates["g"], 2 * plain["g"])


@pytest.mark.parametrize("wrap", [lambda tx: scaled(tx, {"g": 2.0}), lambda tx: {"f+b+g": tx}])
def test_the_loss_goes_through_what_wraps_a_transform(wrap) -> None:
    """Polyak's step is the loss over the squared norm of the gradient."""
    updates = learn(wrap(optax.polyak_sgd()), value=1.0)
    assert 0 < float(-updates["b"][0]) < 1


def test_kernels_are_neither_biases_nor_scales_nor_word_vectors() -> None:
    matrix, vector = jnp.ones((2, 3)), jnp.ones((3,))
    heads = {"query": {"kernel": jnp.ones((2, 2, 3)), "bias": matrix}}  # the bias of attention has two axes
    params = {
        "f": {"Dense_0": {"kernel": matrix, "bias": vector}, "norm": {"scale": vector, "bias": vector}, **heads},
        "g": {"linear/kernel": matrix, "linear/bias": vector, "embed/embedding": matrix},  # as nnx modules name theirs
        "own": {"w": matrix, "gain": vector},
    }
    found = kernels()(params)
    assert found == {
        "f": {"Dense_0": {"kernel": True, "bias": False}, "norm": {"scale": False, "bias": False},
              "query": {"kernel": True, "bias": False}},
        "g": {"linear/kernel": True, "linear/bias": False, "embed/embedding": False},
        "own": {"w": True, "gain": False},
    }  # fmt: skip
    assert not any(jnp.array(jax.tree.leaves(kernels("own")(params)["f"])))


def noise_of(tx: optax.GradientTransformation, key: jax.Array) -> list[np.ndarray]:
    """The words of the keys in the first states, by moment."""
    params = {"f": jnp.ones(2), "g": jnp.ones(2)}
    first = first_states(transforms(tx, ("f",), ("g",)), params, key)
    keys = [x for x in jax.tree.leaves(first) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)]
    return [np.asarray(jax.random.key_data(x)) for x in keys]


@pytest.mark.parametrize("tx", [optax.add_noise(0.1, 0.5, 3), optax.noisy_sgd(0.1, key=jax.random.key(3))])
def test_an_optimizers_noise_is_seeded_by_its_key_and_by_the_blocks(tx: optax.GradientTransformation) -> None:
    found = [*noise_of(tx, jax.random.key(0)), *noise_of(tx, jax.random.key(1))]
    found += noise_of(optax.add_noise(0.1, 0.5, 4), jax.random.key(0))
    assert len({words.tobytes() for words in found}) == len(found) == 6  # two moments, blocks' keys, and optimizers'
    np.testing.assert_array_equal(noise_of(tx, jax.random.key(0)), found[:2])


def test_noise_of_trials_is_that_of_each_alone() -> None:
    tx, keys = optax.add_noise(0.1, 0.5, 3), jax.random.split(jax.random.key(0))
    params = {"f": jnp.ones((2, 3))}
    many = optax.GradientTransformation(jax.vmap(tx.init), tx.update)
    together = first_states({"f": many}, params, keys)["f"].rng_key
    for r in range(2):
        alone = first_states({"f": tx}, {"f": jnp.ones(3)}, keys[r])["f"].rng_key
        assert together[r] == alone


def test_states_without_keys_are_the_transforms_own() -> None:
    tx, params = optax.adam(0.1), {"f": jnp.ones(2)}
    jax.tree.map(
        np.testing.assert_array_equal, first_states({"f": tx}, params, jax.random.key(0))["f"], tx.init(params)
    )


def test_a_boxed_array_is_a_kernel_by_its_own_name() -> None:
    """As `nn.with_partitioning` boxes it."""
    box = lambda x: nn.Partitioned(x, names=(None, "model"))
    boxed = {"f": {"embedding": box(jnp.ones((2, 3))), "kernel": box(jnp.ones((2, 3)))}}
    assert jax.tree.leaves(kernels()(boxed)) == [False, True]


@pytest.mark.parametrize("wrap", [lambda tx: tx, lambda tx: optax.MultiSteps(tx, 2)])
def test_kernels_of_a_group_that_no_block_has_are_refused(wrap: Any) -> None:
    groups = ("f", "g")
    some, none = (wrap(optax.adamw(0.1, mask=kernels(*names))) for names in (("g",), ("f", "typo")))
    block = LocalBlock("b", "none", lambda *_: None, lambda *_: None, {"f": some})
    check_kernels([block], groups)  # this block has no g, and another one does
    check_kernels([block._replace(tx={"f": optax.adamw(0.1, mask=kernels())})], groups)
    with pytest.raises(ValueError, match=r"kernels\('typo'\).*groups are 'f', 'g'"):
        check_kernels([block, block._replace(tx={"f": none})], groups)


def test_a_model_refuses_kernels_of_a_group_that_it_has_not() -> None:
    spec = jax.ShapeDtypeStruct((8, 5), jnp.float32)
    for make in (lg.early_exit, lg.dgl, lg.bp, lg.al, lg.noprop):
        with pytest.raises(ValueError, match=r"kernels\('heads'\): the model has no parameters of that name"):
            make(lg.mlp((4,)), spec, 3, tx=optax.adamw(0.1, mask=kernels("heads")))
        make(lg.mlp((4,)), spec, 3, tx=optax.adamw(0.1, mask=kernels("f")))
