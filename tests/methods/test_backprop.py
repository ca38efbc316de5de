"""Backpropagation on equal terms: as many parameters as Associated Learning predicts with."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad.base import Model
from localgrad.blocks import cnn, mlp
from localgrad.methods import al, bp, bp_matched
from localgrad.pipeline import specs


def effective(model: Model) -> int:
    pairs = zip(specs(model)[0], model.effective, strict=True)
    return sum(x.size for state, used in pairs for group in used for x in jax.tree.leaves(state.params[group]))


@pytest.mark.parametrize("options", [{}, {"profile": "iclr", "target_width": 12}, {"bridge": (3, 2)}], ids=str)
@pytest.mark.parametrize(("network", "shape"), [(mlp((7, 6, 5)), (4, 9)), (cnn((4, 6), norm=True), (4, 6, 6, 1))])
def test_bp_matched_has_the_parameters_of_al(network: list, shape: tuple[int, ...], options: dict) -> None:
    spec = jax.ShapeDtypeStruct(shape, jnp.float32)
    ours, theirs = (
        make(network, spec, 3, tx=optax.sgd(0.1), **options, **more)
        for make, more in ((bp_matched, {"norm": False}), (al, {}))
    )
    assert effective(ours) == effective(theirs)


@pytest.mark.parametrize("norm", [False, True])
def test_layers_that_bp_matched_adds_are_of_neco(norm: bool, x64: None, random_states: Callable) -> None:
    """ReLU whatever the network has, He's kernels, and batch norm where the network has it."""
    width, classes = 3, 2
    spec = jax.ShapeDtypeStruct((4, 9), jnp.float64)
    model = bp_matched(mlp((7, 6), norm=norm), spec, classes, tx=optax.sgd(0.1), target_width=width)
    states = random_states(model)
    widths = [5 * width, width, width]  # the two layers of the bridge, and a decoder of each block but the first
    added = [state.params["f"] for state in states[2:]]
    assert [params["Dense_0"]["kernel"].shape[1] for params in added] == widths
    assert all(("BatchNorm_0" in params) == norm and ("bias" in params["Dense_0"]) != norm for params in added)

    x = np.random.default_rng(0).normal(size=spec.shape)
    elu = lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
    h = x
    for i, state in enumerate(jax.device_get(states)):
        own, running = state.params["f"], state.model_state["f"]
        h = h @ own["Dense_0"]["kernel"]
        if norm:
            stats, line = running["batch_stats"]["BatchNorm_0"], own["BatchNorm_0"]
            h = (h - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * line["scale"] + line["bias"]
        else:
            h = h + own["Dense_0"]["bias"]
        h = elu(h) if i < 2 else np.maximum(h, 0)
    head = jax.device_get(states[-1].params["head"]["Dense_0"])
    np.testing.assert_allclose(
        model.predict(states, jnp.asarray(x)), h @ head["kernel"] + head["bias"], rtol=0, atol=1e-10
    )


def test_a_three_layer_head_is_three_dense_layers(x64: None, random_states: Callable) -> None:
    """ICLR table 6."""
    spec = jax.ShapeDtypeStruct((4, 9), jnp.float64)
    model = bp(mlp((7,)), spec, 3, tx=optax.sgd(0.1), hidden=(6, 5))
    (state,) = states = random_states(model)
    head = state.params["head"]
    assert [head[f"Dense_{i}"]["kernel"].shape for i in range(len(head))] == [(7, 6), (6, 5), (5, 3)]
    x = jnp.asarray(np.random.default_rng(0).normal(size=spec.shape))
    h, _ = model.features(states, x)
    for i in range(3):
        h = h @ head[f"Dense_{i}"]["kernel"] + np.asarray(head[f"Dense_{i}"]["bias"])[None]
        h = np.maximum(h, 0) if i < 2 else h
    np.testing.assert_allclose(model.predict(states, x), h, rtol=0, atol=1e-12)


@pytest.mark.parametrize("hidden", [(6, 0), (6.0,), 6, "66", (True,)])
def test_a_head_of_no_units_is_refused(hidden: Any) -> None:
    spec = jax.ShapeDtypeStruct((4, 9), jnp.float32)
    with pytest.raises(ValueError, match="hidden is a sequence of positive numbers of units"):
        bp(mlp((7,)), spec, 3, tx=optax.sgd(0.1), hidden=hidden)
