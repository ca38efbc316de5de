"""A trained network as the start of a longer one."""

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad.base import Batches, Model
from localgrad.blocks import mlp
from localgrad.methods import al, bp, dfa, dgl, freeze, graft, heads_alone, scl, transfer
from localgrad.pipeline import sequential

SPEC = jax.ShapeDtypeStruct((6, 5), jnp.float32)
METHODS = {"al": al, "scl": scl, "dgl": dgl}


OPTIONS: dict[Callable, dict] = {al: {"target_width": 4}, dgl: {"aux": "hidden"}}  # small heads


@cache
def build(method: str, widths: tuple[int, ...], norm: bool = False) -> Model:
    make = METHODS[method]
    return make(mlp(widths, norm=norm), SPEC, 3, tx=optax.adam(0.1), **OPTIONS.get(make, {}))


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
    model = freeze(build("al", (7, 6), norm=True), 1)
    start = random_states(model)
    rng = np.random.default_rng(0)
    fed = as_batches(rng.normal(size=(3, 6, 5)).astype(np.float32), rng.integers(0, 3, (3, 6)).astype(np.int32))
    engine = sequential(model)
    state, _ = engine.run(engine.load(start, jax.random.key(0)), fed)
    after = engine.states(state)
    assert equal(after[0], start[0])
    assert not equal(after[1].params, start[1].params)
    assert not equal(after[1].model_state, start[1].model_state)


@pytest.mark.parametrize("count", [-1, 3])
def test_one_block_must_learn(count: int) -> None:
    with pytest.raises(ValueError, match=f"frozen={count} of 3 blocks"):
        freeze(build("al", (7, 6, 4)), count)


@pytest.mark.parametrize(
    ("method", "widths"),
    [(al, (7,)), (dgl, (7, 6)), (bp, (7,)), (dfa, (7,))],
    ids=["al", "dgl", "bp", "dfa"],
)
def test_heads_learn_alone_and_as_they_would(
    method, widths: tuple[int, ...], as_batches: Callable[..., Batches], random_states: Callable
) -> None:
    """Layers and their statistics stand still; a first step moves the heads as it would with all that learns."""
    whole = method(mlp(widths, norm=True), SPEC, 3, tx=optax.sgd(0.1), **OPTIONS.get(method, {}))
    model = heads_alone(whole)
    start = random_states(whole)
    fresh = random_states(model)
    alone = tuple(state._replace(opt_state=own.opt_state) for state, own in zip(start, fresh, strict=True))
    rng = np.random.default_rng(0)
    fed = as_batches(rng.normal(size=(1, 6, 5)).astype(np.float32), rng.integers(0, 3, (1, 6)).astype(np.int32))
    found = []
    for each, states in ((whole, start), (model, alone)):
        engine = sequential(each)
        state, metrics = engine.run(engine.load(states, jax.random.key(0)), fed)
        metrics.check()
        found.append(engine.states(state))
    moved = 0
    for before, learnt, fixed in zip(start, *found, strict=True):
        for group in before.params:
            still = equal(fixed.params[group], before.params[group])
            assert still if group == "f" else True
            if group != "f":
                for a, b in zip(*map(jax.tree.leaves, (fixed.params[group], learnt.params[group])), strict=True):
                    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
                moved += not still
        assert equal(fixed.model_state.get("f", ()), before.model_state.get("f", ()))
    assert moved


def test_what_is_transferred(random_states: Callable) -> None:
    trained = random_states(build("dgl", (7, 6)), 1)
    other = build("dgl", (7, 4))
    new = random_states(other)
    found = transfer(new, trained)
    assert equal(found[0].params["f"], trained[0].params["f"]) and equal(found[1].params, new[1].params)
    assert equal(found[0].params["aux"], new[0].params["aux"]) and equal(found[0].opt_state, new[0].opt_state)
    assert equal(transfer(new, trained, None)[0].params, trained[0].params)
    with pytest.raises(ValueError, match="nothing of the trained network fits"):
        transfer(random_states(build("dgl", (5, 4))), trained)
    with pytest.raises(ValueError, match="has nothing that learns besides the layers f, head, aux"):
        heads_alone(other, ("f", "head", "aux"))
