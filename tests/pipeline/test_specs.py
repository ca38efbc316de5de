"""First states: drawn from the key alone, by programs that are compiled once a model."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import localgrad as lg


def test_init_of_another_key_traces_nothing_and_draws_other_numbers():
    model = lg.early_exit(lg.mlp((4, 4, 4)), jax.ShapeDtypeStruct((2, 4), jnp.float32), 3, tx=optax.sgd(0.1))
    traced = []

    def counted(block):
        return block._replace(init=lambda key, spec: (traced.append(block.name), block.init(key, spec))[1])

    model = model._replace(blocks=tuple(map(counted, model.blocks)))
    one = lg.init(model, jax.random.key(0))
    before = len(traced)
    other, again = (lg.init(model, jax.random.key(seed)) for seed in (1, 0))
    assert before > 0 and len(traced) == before
    jax.tree.map(np.testing.assert_array_equal, one, again)
    kernels = [
        np.asarray(x) for states in (one, other) for s in states for x in jax.tree.leaves(s.params) if x.ndim > 1
    ]
    assert len({kernel.tobytes() for kernel in kernels}) == len(kernels)  # of equal blocks too
