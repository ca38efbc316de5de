"""First states: drawn from the key alone, by programs that equal blocks share."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import localgrad as lg
from localgrad.pipeline.drawing import _drawing


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


def model_of(*widths: int) -> lg.Model:
    return lg.early_exit(lg.mlp(widths), jax.ShapeDtypeStruct((2, 4), jnp.float32), 3, tx=optax.sgd(0.1))


def test_equal_blocks_of_two_models_are_drawn_by_one_program():
    first, second = _drawing(model_of(5, 6, 6)), _drawing(model_of(5, 6, 7))
    assert [a is b for a, b in zip(first, second, strict=True)] == [True, True, False]


def test_blocks_that_call_the_host_share_none():
    def telling(model: lg.Model) -> lg.Model:
        block = model.blocks[0]

        def init(key, spec):
            jax.debug.callback(print, "drawn")
            return block.init(key, spec)

        return model._replace(blocks=(block._replace(init=init), *model.blocks[1:]))

    first, second = (_drawing(telling(model_of(5, 6))) for _ in range(2))
    assert [a is b for a, b in zip(first, second, strict=True)] == [False, True]
