"""The gradient audit: a block's update hears of the blocks below, and of those above where it waits for them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.checks.thin_networks import FEW
from localgrad.base import Key, Model
from localgrad.blocks import mlp
from localgrad.methods import METHODS
from localgrad.pipeline.step import gradients
from localgrad.report import cosine, true_gradients

BATCH, CLASSES = 12, 3
Y = np.arange(BATCH, dtype=np.int32) % CLASSES
OF_IMAGES = ("rotation", "gim", "loco")
SMALL = {  # heads of few layers, and losses of few terms
    **FEW,
    "al": {"bridge": ()},
    "dgl": {"aux": "hidden", "hidden": 6},
    **{method: {"patch": 4, "steps": 1, "negatives": 3} for method in ("gim", "loco")},
}
DEAF = ("noprop",)  # blocks that hear of no other at all


def build(method: str) -> Model:
    spec = jax.ShapeDtypeStruct((BATCH, 8, 8, 1) if method in OF_IMAGES else (BATCH, 5), jnp.float64)
    return METHODS[method](mlp((7, 6, 5)), spec, CLASSES, lambda scale: optax.sgd(scale), **SMALL.get(method, {}))


def inputs(model: Model) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=model.x_spec.shape))


def updates(model: Model) -> Callable:
    message = lambda: model.enter(inputs(model), jnp.asarray(Y))
    return jax.jit(lambda states: [grads for _, grads, _ in gradients(model, states, message(), keys_of(model))])


def keys_of(model: Model) -> list[Key]:
    return [jax.random.key(i) for i in range(len(model.blocks))]


def same(ours, theirs) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True))


FULL = (
    *("cdni", "direct_tp", "drtp"),  # as dni, dtp and dfa; who hears of whom is in their own files, group by group
    *("pred", "sim"),  # the two losses of predsim
)


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(method, marks=pytest.mark.full) if method in FULL else method
        for method in sorted(set(METHODS) - {"bp_fc"})  # it has no convolutions to freeze here
    ],
)
def test_updates_hear_of_the_blocks_that_they_may(method: str, x64: None, random_states: Callable) -> None:
    """Those below; of those above none, or the next one, or all, by what the block waits for.

    And their cosine with the true gradient: exactly 1 for backpropagation; finite, and not that, for the others."""
    model = build(method)
    hears_above = {"none": 0, "next": 1, "top": len(model.blocks), "above": len(model.blocks)}[model.blocks[0].signal]
    states, others = random_states(model), random_states(model, seed=1)
    run = updates(model)
    before = run(states)
    for changed in range(len(states)):
        after = run((*states[:changed], others[changed], *states[changed + 1 :]))
        for i, (ours, theirs) in enumerate(zip(before, after, strict=True)):
            if i != changed:
                deaf = method in DEAF or changed > i + hears_above
                assert same(ours, theirs) == deaf, (i, changed)

    truth = lambda states: true_gradients(model, states, inputs(model), jnp.asarray(Y), keys_of(model))
    theirs = jax.jit(truth)(states)
    found = [float(cosine(g["f"], t)) for g, t in zip(before, theirs, strict=True) if t is not None]
    assert len(found) >= 3
    assert all(abs(value) <= 1 + 1e-12 for value in found)  # that of a last block rounds to either side of 1
    if method.startswith("bp"):
        np.testing.assert_allclose(found, 1, rtol=1e-12)
    else:
        assert min(abs(value - 1) for value in found[:-1]) > 1e-3


def test_cosine() -> None:
    a, b = {"x": jnp.array([1.0, 2.0]), "y": jnp.array([[2.0]])}, {"x": jnp.array([2.0, -1.0]), "y": jnp.array([[0.0]])}
    assert float(cosine(a, b)) == 0.0
    np.testing.assert_allclose(cosine(a, jax.tree.map(lambda v: -3 * v, a)), -1.0, rtol=1e-6)
    assert float(cosine(a, jax.tree.map(jnp.zeros_like, a))) == 0.0
