"""Backpropagation on equal terms: as many parameters as Associated Learning predicts with."""

import jax
import jax.numpy as jnp
import optax
import pytest

from localgrad.base import Model
from localgrad.blocks import cnn, mlp
from localgrad.methods import al, bp_matched
from localgrad.pipeline import specs


def effective(model: Model) -> int:
    pairs = zip(specs(model)[0], model.effective, strict=True)
    return sum(x.size for state, used in pairs for group in used for x in jax.tree.leaves(state.params[group]))


@pytest.mark.parametrize("options", [{}, {"profile": "iclr", "target_width": 12}, {"bridge": (3, 2)}], ids=str)
@pytest.mark.parametrize(("network", "shape"), [(mlp((7, 6, 5)), (4, 9)), (cnn((4, 6), norm=True), (4, 6, 6, 1))])
def test_bp_matched_has_the_parameters_of_al(network: list, shape: tuple[int, ...], options: dict) -> None:
    spec = jax.ShapeDtypeStruct(shape, jnp.float32)
    ours, theirs = (make(network, spec, 3, tx=optax.sgd(0.1), **options) for make in (bp_matched, al))
    assert effective(ours) == effective(theirs)
