"""What a block keeps: nothing twice, no constant, and the whole stash again."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from localgrad import dfa, init, mlp
from localgrad.pipeline import step
from localgrad.pipeline.stash import stashes


def test_what_is_kept_gives_the_whole_stash_again():
    model = dfa(mlp((8, 8)), jax.ShapeDtypeStruct((4, 8), jnp.float32), 3, tx=optax.sgd(0.1))
    state_specs, message_specs = step.specs(model)
    state = init(model, jax.random.key(0))[0]
    message = step.enter(model, (jnp.linspace(-1, 1, 32).reshape(4, 8), jnp.zeros((4,), jnp.int32)))
    whole = model.blocks[0].forward(state, message, jax.random.key(1))[2]
    for borrow in (False, True):
        stash = stashes(model, state_specs, message_specs, borrow=borrow)[0]
        kept = stash.keep(whole)
        assert [(x.shape, x.dtype) for x in kept] == [(x.shape, x.dtype) for x in stash.spec]
        assert len(kept) < len(jax.tree.leaves(whole))
        again = jax.tree.leaves(stash.whole(kept, state))
        for found, expected in zip(again, jax.tree.leaves(whole), strict=True):
            np.testing.assert_array_equal(found, expected)
