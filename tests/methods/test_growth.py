"""A trained network as the start of a longer one."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad.base import Batches, Model
from localgrad.blocks import mlp
from localgrad.methods import al, dgl, freeze, graft, scl
from localgrad.pipeline import sequential

SPEC = jax.ShapeDtypeStruct((6, 5), jnp.float32)
METHODS = {"al": al, "scl": scl, "dgl": dgl}


def build(method: str, widths: tuple[int, ...], norm: bool = False) -> Model:
    return METHODS[method](mlp(widths, norm=norm), SPEC, 3, tx=optax.adam(0.1))


def equal(ours, theirs) -> bool:
    leaves = zip(*map(jax.tree.leaves, (ours, theirs)), strict=True)
    return all(a.shape == b.shape and np.array_equal(a, b) for a, b in leaves)


@pytest.mark.parametrize("method", METHODS)
def test_lower_blocks_are_taken_over(method: str, random_states: Callable) -> None:
    short, long = (random_states(build(method, widths), seed) for seed, widths in enumerate([(7, 6), (7, 6, 4)]))
    grown = graft(long, short)
    assert jax.tree.structure(grown) == jax.tree.structure(long)
    for i in range(2):
        assert equal(grown[i].params["f"], short[i].params["f"])
        assert equal(grown[i].opt_state, long[i].opt_state)  # the optimizer starts anew
    assert equal(grown[2:], long[2:])
    if method == "al":
        assert equal([state.params for state in grown[:2]], [state.params for state in short])
    if method == "dgl":  # the short network's top block had its own head, which is an auxiliary network now
        assert equal(grown[1].params["aux"], long[1].params["aux"])


def test_what_does_not_fit_is_refused(random_states: Callable) -> None:
    short = random_states(build("al", (7, 6)))
    with pytest.raises(ValueError, match="block 2 is another one in the trained network"):
        graft(random_states(build("al", (7, 5, 4))), short)
    with pytest.raises(ValueError, match="a network of 2 blocks can only start one of more blocks"):
        graft(short, short)


def test_frozen_blocks_stand_still(as_batches: Callable[..., Batches], random_states: Callable) -> None:
    """Neither parameters nor batch statistics move, and the blocks above learn what they would with a rate of zero."""
    model = freeze(build("al", (7, 6, 4), norm=True), 2)
    start = random_states(model)
    rng = np.random.default_rng(0)
    fed = as_batches(rng.normal(size=(3, 6, 5)).astype(np.float32), rng.integers(0, 3, (3, 6)).astype(np.int32))
    engine = sequential(model)
    state, _ = engine.run(engine.load(start, jax.random.key(0)), fed)
    after = engine.states(state)
    assert equal(after[:2], start[:2])
    assert not equal(after[2].params, start[2].params)
    assert not equal(after[2].model_state, start[2].model_state)


@pytest.mark.parametrize("count", [-1, 3])
def test_one_block_must_learn(count: int) -> None:
    with pytest.raises(ValueError, match=f"frozen={count} of 3 blocks"):
        freeze(build("al", (7, 6, 4)), count)
