"""Associated Learning without the stops between its blocks: one local block of the sum of all losses."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad import Model, al, init, mlp, sequential
from localgrad.base import BlockState
from localgrad.data import batches

BATCH, CLASSES = 6, 3


def make(**options) -> Model:
    tx = {"f+b": optax.sgd(0.1), "g+h": optax.sgd(0.2)}
    network = mlp((5, 4), activation="tanh")
    return al(network, jax.ShapeDtypeStruct((BATCH, 7), jnp.float64), CLASSES, tx=tx, target_width=4, **options)


def fed(steps: int):
    rng = np.random.default_rng(0)
    ys = rng.integers(0, CLASSES, (steps, BATCH)).astype(np.int32)
    return batches(jnp.asarray(rng.normal(size=(steps, BATCH, 7))), jnp.asarray(ys))


def split(state: BlockState) -> list[dict]:
    """The parameters of the two blocks that are joined."""
    return [{group: each[str(i)] for group, each in state.params.items()} for i in (1, 2)]


def stepped(model: Model, states: tuple[BlockState, ...]) -> tuple[tuple[BlockState, ...], dict]:
    engine = sequential(model)
    state, metrics = engine.run(engine.load(states, jax.random.key(1)), fed(1))
    return engine.states(state), metrics.values[0]


def test_a_step_descends_the_sum_of_the_losses_of_all_blocks(x64: None, random_states: Callable) -> None:
    joined, apart = make(stops=False, profile="iclr"), make(profile="iclr")
    states = random_states(joined)
    (after,), metrics = stepped(joined, states)
    x, y = (item[0] for item in fed(1).items)

    def total(params: list[dict]) -> jax.Array:
        s, t = x, jax.nn.one_hot(y, CLASSES, dtype=x.dtype)
        loss = jnp.zeros(())
        for p in params:
            linear = lambda group, v, p=p: v @ jax.tree.leaves(p[group])[1] + jax.tree.leaves(p[group])[0][None]
            of = lambda group, v, linear=linear: linear(group, v) if group == "b" else jnp.tanh(linear(group, v))
            s, below = of("f", s), t
            t = of("g", t)
            loss += jnp.mean((of("b", s) - t) ** 2) + jnp.mean((of("h", t) - below) ** 2)
        return loss

    before = split(states[0])
    value, grads = jax.jit(jax.value_and_grad(total))(before)
    np.testing.assert_allclose(metrics["loss"][0], value, rtol=1e-12)
    for old, new, grad in zip(before, split(after), grads, strict=True):
        for group, rate in (("f", 0.1), ("b", 0.1), ("g", 0.2), ("h", 0.2)):
            for a, b, g in zip(*(jax.tree.leaves(tree[group]) for tree in (old, new, grad)), strict=True):
                np.testing.assert_allclose(b, a - rate * g, rtol=0, atol=1e-12)
    assert joined.exits == apart.exits and len(joined.blocks) == 1


@pytest.mark.full
def test_it_predicts_as_the_same_blocks_apart(x64: None) -> None:
    joined, apart = make(stops=False), make()
    states = init(joined, jax.random.key(0))
    like = init(apart, jax.random.key(0))
    same = [state._replace(params=params) for state, params in zip(like, split(states[0]), strict=True)]
    x = jnp.asarray(np.random.default_rng(1).normal(size=(BATCH, 7)))
    for exit in joined.exits:
        np.testing.assert_allclose(joined.predict(states, x, exit), apart.predict(tuple(same), x, exit), atol=1e-12)
    for one, other in zip(joined.features(states, x), apart.features(tuple(same), x), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_the_top_association_alone_trains_every_encoder(x64: None, random_states: Callable) -> None:
    model = make(stops=False, association="top")
    states = random_states(model)
    (after,), _ = stepped(model, states)
    moved = [
        {group: any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (old[group], new[group])), strict=True))
         for group in old}
        for old, new in zip(split(states[0]), split(after), strict=True)
    ]  # fmt: skip
    assert moved == [{"f": True, "b": False, "g": True, "h": True}, dict.fromkeys("fbgh", True)]


@pytest.mark.parametrize("options", [{"association": "top"}, {"association": "none", "stops": False}])
def test_blocks_without_a_gradient_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="association is 'all', or 'top' with stops=False"):
        al(mlp((5, 4)), jax.ShapeDtypeStruct((6, 7), jnp.float32), 3, tx=optax.sgd(0.1), **options)
