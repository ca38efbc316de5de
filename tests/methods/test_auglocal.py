"""AugLocal restated in numpy; which layers it copies, and what it refuses."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from localgrad.blocks import from_nnx, mlp
from localgrad.methods import auglocal, early_exit
from localgrad.methods.auglocal import chosen, depths
from localgrad.pipeline import sequential, specs

BATCH, CLASSES, RATE = 6, 3, 0.1
SPEC = jax.ShapeDtypeStruct((BATCH, 5), jnp.float64)
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(BATCH, 5)), RNG.integers(0, CLASSES, BATCH).astype(np.int32)

pytestmark = pytest.mark.usefixtures("x64")


def network() -> list:
    return mlp((4, 6, 7, 3), activation="tanh")


def test_one_step_restated(random_states: Callable, as_batches: Callable) -> None:
    """Four blocks, two copies: the first looks through the third and fourth's forms, the second too, the third once."""
    model = auglocal(network(), SPEC, CLASSES, tx=optax.sgd(RATE), depth=2, shrink=0.0)
    assert [chosen(k, 4, 2) for k in range(4)] == [[2, 3], [2, 3], [3], []]
    states = random_states(model)
    engine = sequential(model)
    state, metrics = engine.run(engine.load(states, jax.random.key(0)), as_batches(X[None], Y[None]))
    below = X
    for before, after, values in zip(states, engine.states(state), metrics.values, strict=True):
        old, new = (jax.tree.map(np.asarray, each.params) for each in (before, after))
        aux = old["aux"] if "0" in old["aux"] else {"0": old["aux"]}
        stack = [old["f"]["Dense_0"], *(aux[str(i)]["Dense_0"] for i in range(len(aux)))]
        outputs = [below]
        for i, layer in enumerate(stack):
            h = outputs[-1] @ layer["kernel"] + layer["bias"]
            outputs.append(np.tanh(h) if i < len(stack) - 1 else h)
        shares = np.exp(outputs[-1] - outputs[-1].max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        np.testing.assert_allclose(values["loss"][0], -np.log(shares[np.arange(BATCH), Y]).mean(), rtol=1e-13)
        error = (shares - np.eye(CLASSES)[Y]) / BATCH
        aux = new["aux"] if "0" in new["aux"] else {"0": new["aux"]}
        found = [new["f"]["Dense_0"], *(aux[str(i)]["Dense_0"] for i in range(len(aux)))]
        for i in reversed(range(len(stack))):
            np.testing.assert_allclose(found[i]["kernel"], stack[i]["kernel"] - RATE * outputs[i].T @ error, atol=1e-14)
            np.testing.assert_allclose(found[i]["bias"], stack[i]["bias"] - RATE * error.sum(0), atol=1e-14)
            error = error @ stack[i]["kernel"].T * (1 - outputs[i] ** 2)
        below = outputs[1]


def test_copies_have_the_form_of_the_layers_above_and_are_drawn_afresh() -> None:
    model = auglocal(network(), SPEC, CLASSES, tx=optax.sgd(RATE), depth=1)
    first, *_, last = (state.params for state in specs(model)[0])
    kernels = lambda tree: [leaf.shape for leaf in jax.tree.leaves(tree) if leaf.ndim == 2]
    assert kernels(first["aux"]) == [(4, 3), (3, CLASSES)]  # the fourth block's form, on the first block's features
    assert kernels(last["aux"]) == [(3, CLASSES)]


def test_depth_falls_with_the_block() -> None:
    assert depths(16, 9, 1.0) == [9, 8, 8, 7, 7, 6, 6, 5, 4, 4, 3, 3, 2, 2, 1, 0]
    assert depths(3, 3, 0.5) == [3, 2, 0] and depths(1, 3, 0.5) == [0]


def test_one_block_is_early_exit(random_states: Callable) -> None:
    ours, theirs = (make(network()[:1], SPEC, CLASSES, tx=optax.sgd(RATE)) for make in (auglocal, early_exit))
    shapes = lambda model: [leaf.shape for leaf in jax.tree.leaves([state.params for state in specs(model)[0]])]
    assert sorted(shapes(ours)) == sorted(shapes(theirs))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"depth": 0}, "depth is a positive number of layers; got 0"),
        ({"depth": 1.5}, "depth is a positive number of layers; got 1.5"),
        ({"shrink": 1.5}, r"shrink is a share in \[0, 1\]; got 1.5"),
        ({"pool": -1}, "pool is a positive number of features"),
    ],
)
def test_refusals(options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        auglocal(network(), SPEC, CLASSES, tx=optax.sgd(RATE), **options)


def test_a_copy_of_a_fixed_shape_is_refused() -> None:
    blocks = [*network()[:2], from_nnx(lambda rngs: nnx.Linear(6, 4, rngs=rngs), name="fixed")]
    auglocal(blocks[1:], jax.ShapeDtypeStruct((BATCH, 5), jnp.float64), CLASSES, tx=optax.sgd(RATE))
    with pytest.raises(ValueError, match=r"copy of block 'fixed' on the features \(6, 4\) above block 'dense4'"):
        auglocal(blocks, SPEC, CLASSES, tx=optax.sgd(RATE), depth=1)
