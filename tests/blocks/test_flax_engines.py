"""Blocks of modules that draw, keep statistics, sow or are lifted train alike in both engines."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import localgrad as lg
from localgrad.blocks import from_linen, from_nnx

from .test_given import Linen, noisy, sowing
from .test_modes import NnxAttribute, NnxPlain, NnxScanned, Options, PinnedNorm, Required, Scanned, Undecided

pytestmark = pytest.mark.full
SCANNED = nn.scan(
    Scanned, variable_axes={"params": 0}, split_rngs={"params": True, "dropout": True}, in_axes=nn.broadcast, length=2
)
NETWORKS = {
    "options, nnx attribute": lambda: [
        from_linen(Options()),
        from_linen(nn.Dense(12), name="widen"),
        from_nnx(NnxAttribute),
    ],
    "remat, sowing": lambda: [from_linen(nn.remat(Required, static_argnums=(2,))()), from_linen(Linen(sowing))],
    "scan, undecided": lambda: [from_linen(SCANNED()), from_linen(Undecided())],
    "nnx scan, nnx": lambda: [from_nnx(NnxScanned), from_nnx(NnxPlain)],
    "noise, frozen": lambda: [
        from_linen(Linen(noisy), rngs=("dropout", "noise")),
        from_linen(PinnedNorm(), frozen=("norm",)),
    ],
}


def trained(make: Any, engine: Any, dtype: Any) -> tuple[Any, Any]:
    """Initial states and those after three batches."""
    spec = jax.ShapeDtypeStruct((8, 12), dtype)
    model = lg.early_exit(make(), spec, 3, tx=optax.sgd(0.1, momentum=0.9))
    rng = np.random.default_rng(0)
    fed = lg.data.batches(jnp.asarray(rng.normal(size=(3, 8, 12)), dtype), jnp.asarray(rng.integers(0, 3, (3, 8))))
    made = engine(model)
    states = lg.init(model, jax.random.key(0))
    state, _ = made.run(made.load(states, jax.random.key(1)), fed)
    return jax.device_get((states, made.states(state, fed)))


@pytest.mark.parametrize(
    ("network", "dtype"),
    [*((name, jnp.float32) for name in NETWORKS), ("remat, sowing", jnp.bfloat16), ("nnx scan, nnx", jnp.bfloat16)],
)
def test_one_stage_after_another_equals_two_at_once(network: str, dtype: Any) -> None:
    make = NETWORKS[network]
    states, alone = trained(make, lg.sequential, dtype)
    _, piped = trained(make, lambda model: lg.spmd(model, stages=2), dtype)
    jax.tree.map(np.testing.assert_array_equal, alone, piped)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), states[-1].params, alone[-1].params)
    assert any(jax.tree.leaves(moved))
    assert jax.tree.map(lambda x: x.dtype, states) == jax.tree.map(lambda x: x.dtype, alone)
