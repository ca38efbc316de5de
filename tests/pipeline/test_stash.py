"""What blocks keep: nothing twice, no constant, and the whole stash again."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from localgrad import dfa, init, mlp
from localgrad.pipeline import feeding, specs
from localgrad.pipeline.stash import stashes


def test_what_is_kept_gives_the_whole_stash_again():
    model = dfa(mlp((8, 8)), jax.ShapeDtypeStruct((4, 8), jnp.float32), 3, tx=optax.sgd(0.1))
    state_specs, message_specs = specs(model)
    state = init(model, jax.random.key(0))[0]
    message = feeding.enter(model, (jnp.linspace(-1, 1, 32).reshape(4, 8), jnp.zeros((4,), jnp.int32)))
    whole = model.blocks[0].forward(state, message, jax.random.key(1)).stash
    for borrow in (False, True):
        stash = stashes(model, state_specs, message_specs, borrow=borrow)[0]
        kept = stash.keep([whole])
        assert [(x.shape, x.dtype) for x in kept] == [(x.shape, x.dtype) for x in stash.spec]
        assert len(kept) < len(jax.tree.leaves(whole))
        again = jax.tree.leaves(stash.whole(0, kept, state))
        for found, expected in zip(again, jax.tree.leaves(whole), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_what_a_block_hands_on_and_the_next_is_given_is_kept_once():
    model = dfa(mlp((8, 8, 8)), jax.ShapeDtypeStruct((4, 8), jnp.float32), 3, tx=optax.sgd(0.1))
    message_specs = specs(model)[1]
    states = init(model, jax.random.key(0))[:-1]  # the last learns at once, and keeps nothing
    message = feeding.enter(model, (jnp.linspace(-1, 1, 32).reshape(4, 8), jnp.zeros((4,), jnp.int32)))
    whole = []
    for block, state in zip(model.blocks, states, strict=False):
        passed = block.forward(state, message, jax.random.key(1))
        message = passed.message
        whole.append(passed.stash)
    span = range(len(whole))
    (together,) = stashes(model, specs(model)[0], message_specs, [span])
    alone = stashes(model, specs(model)[0], message_specs)[:-1]
    kept = together.keep(whole)
    handed_on = (4, 8)  # of two blocks to the next
    count = lambda specs: sum(x.shape == handed_on and x.dtype == jnp.float32 for x in specs)
    assert count(together.spec) == count(x for stash in alone for x in stash.spec) - 2
    for i, state in enumerate(states):
        again = jax.tree.leaves(together.whole(i, kept, state))
        for found, expected in zip(again, jax.tree.leaves(whole[i]), strict=True):
            np.testing.assert_array_equal(found, expected)
