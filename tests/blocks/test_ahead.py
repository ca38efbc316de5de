"""What looks ahead is found, whether it is attention, an LSTM that runs backwards, or a mean over the sequence."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from localgrad.blocks import bilstm, from_linen, looks_ahead, transformer

SPEC = jax.ShapeDtypeStruct((2, 6), jnp.int32)
SMALL = {"layers": 1, "width": 8, "heads": 2, "feed_forward": 8}


class Centred(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x - x.mean(axis=1, keepdims=True)


def test_networks_of_texts():
    assert looks_ahead(transformer(5, causal=True, **SMALL), SPEC) is None
    assert looks_ahead(transformer(5, **SMALL), SPEC) == "encoder8"
    assert looks_ahead(bilstm(5, widths=(4,), embed_width=3), SPEC) == "bilstm4"


def test_a_mean_over_the_sequence_looks_ahead():
    spec = jax.ShapeDtypeStruct((2, 6, 3), jnp.float32)
    assert looks_ahead([from_linen(nn.Dense(4), name="by place")], spec) is None
    assert looks_ahead([from_linen(nn.Dense(4)), from_linen(Centred(), name="centred")], spec) == "centred"
    with pytest.raises(ValueError, match="a sequence of one place has nothing ahead"):
        looks_ahead([], jax.ShapeDtypeStruct((2, 1), jnp.int32))
