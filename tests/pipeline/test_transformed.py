"""Which optax transforms a block can have; what cannot be is refused before anything is trained."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import localgrad as lg

from ..training import own


def no_biases(params):
    """A mask that leaves the biases out."""
    return jax.tree.map(lambda x: x.ndim > 1, params)


def model(tx):
    return own.model(tx=tx, blocks=[lg.from_linen(own.Layer())])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: optax.lbfgs(), "the line search of lbfgs"),
        (lambda: optax.chain(optax.sgd(0.1), optax.scale_by_backtracking_linesearch(5)), "evaluates the loss again"),
        (lambda: contrib.sam(optax.sgd(0.1), optax.sgd(0.1)), "sam do"),
        (lambda: contrib.differentially_private_aggregate(1.0, 0.1, jax.random.key(0)), "the gradient of each example"),
        (lambda: contrib.schedule_free_adamw(1e-2), "schedule_free_eval_params"),
        (lambda: optax.chain(optax.clip(1.0), contrib.schedule_free_sgd(1e-2)), "schedule_free_eval_params"),
        (
            lambda: optax.masked(optax.adam(1e-2), no_biases),
            r"hands on the gradient of \['f'\]\['Dense_0'\]\['bias'\]",
        ),
        (lambda: optax.identity(), "the loss climb"),
    ],
)
def test_what_a_block_cannot_have(make, says):
    with pytest.raises(ValueError, match=rf"the optimizer of block 'Layer' cannot be used here: .*{says}"):
        lg.sequential(model(make()))


@pytest.mark.filterwarnings("ignore")  # optax's own
def test_parameters_of_its_own_are_refused():
    with pytest.raises(ValueError, match="keeps parameters of its own, as lookahead does"):
        lg.sequential(model(optax.lookahead(optax.adam(1e-2), 5, 0.5)))


def test_what_is_not_to_learn_is_set_to_zero():
    """What the message advises does what it says."""
    label = lambda params: jax.tree.map(lambda x: "learns" if x.ndim > 1 else "stands", params)
    chosen = model(optax.partition({"learns": optax.sgd(0.1), "stands": optax.set_to_zero()}, label))
    x, y = own.pictures(own.BATCH)
    fed = lg.data.batches(jnp.asarray(x[None], jnp.float32) / 255, jnp.asarray(y[None]))
    engine, states = lg.sequential(chosen), lg.init(chosen, jax.random.key(0))
    before = jax.tree.map(np.array, [state.params for state in states])
    state, metrics = engine.run(engine.load(states, jax.random.key(1)), fed)
    metrics.check()
    after = [state.params for state in engine.states(state, fed)]
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert np.array_equal(old, new) == (old.ndim == 1)
