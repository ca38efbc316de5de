"""Blocks from Blocks: `remat` keeps less and changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import Block
from localgrad.blocks import chain, mlp, remat

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)
SPEC = jax.ShapeDtypeStruct(X.shape, X.dtype)


def started(block: Block):
    """Its params and model state."""
    return jax.jit(lambda key: block.init(key, SPEC))(KEY)


def way_back(block: Block):
    """`(params, model_state) -> (output, model state, gradients)` of a training step on X, dropout drawn from KEY."""

    def run(params, model_state):
        def loss(params, x):
            y, moved = block.apply(params, model_state, x, key=KEY, train=True)
            return jnp.sum(y**2), (y, moved)

        grads, (y, moved) = jax.grad(loss, (0, 1), has_aux=True)(params, X)
        return y, moved, grads

    return run


def test_remat_gives_the_same_numbers_with_dropout_and_batch_norm() -> None:
    block = chain(mlp((5, 4), norm=True, dropout=0.3))
    params, model_state = started(block)
    found, expected = (jax.jit(way_back(one))(params, model_state) for one in (remat(block), block))
    assert (np.asarray(expected[0]) == 0).any()  # dropout was on
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), found, expected)
    assert remat(block).name == block.name
    same = lambda one: one.apply(params, model_state, X, key=None, train=False)[0]
    np.testing.assert_array_equal(same(remat(block)), same(block))


def test_remat_keeps_the_input_alone() -> None:
    """What a vjp keeps beside the weights: arrays of the batch."""
    block = chain(mlp((7, 5)))

    def kept(block: Block) -> list[tuple[int, ...]]:
        params, model_state = started(block)
        run = lambda params, x: block.apply(params, model_state, x, key=None, train=True)[0]
        vjp = jax.eval_shape(lambda params, x: jax.vjp(run, params, x)[1], params, SPEC)
        return sorted({leaf.shape for leaf in jax.tree.leaves(vjp) if leaf.shape[:1] == X.shape[:1]})

    assert kept(remat(block)) == [(6, 3)]
    assert (6, 7) in kept(block)
